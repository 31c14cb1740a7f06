// Calls every function in each way in which Go's lib/pq sends parameters (drivers.sql).
//
// Every call is undone.  What was answered goes into the table said: the text of the first
// column of the first row, or the SQLSTATE.
package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"
)

type call struct {
	id                     int
	variant, text          string
	kinds, values, natives []string
}

type asker struct {
	connection *sql.Conn
	suffix     string
	said       *[][]any
}

var ctx = context.Background()

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The value as Go has it.
func native(kind, value string) any {
	var texts []string
	switch kind {
	case "int", "version":
		if number, err := strconv.ParseInt(value, 10, 64); err == nil {
			return number
		}
	case "time":
		moment, err := time.Parse(time.RFC3339Nano, value)
		check(err)
		return moment
	case "bytea":
		return unhex(value)
	case "byteas":
		check(json.Unmarshal([]byte(value), &texts))
		bodies := make([][]byte, len(texts))
		for i, text := range texts {
			bodies[i] = unhex(text)
		}
		return pq.Array(bodies)
	case "texts", "jsons", "uuids", "times", "classes":
		check(json.Unmarshal([]byte(value), &texts))
		return pq.Array(texts)
	}
	return value
}

func unhex(value string) []byte {
	decoded, err := hex.DecodeString(strings.TrimPrefix(value, `\x`))
	check(err)
	return decoded
}

// The same, but JSON as bytes. With binary_parameters these are the binary form, which is not JSON.
func bytes(kind, value string) any {
	if kind == "json" {
		return []byte(value)
	}
	return native(kind, value)
}

func all(kinds, values []string, convert func(kind, value string) any) []any {
	converted := make([]any, len(values))
	for i := range values {
		converted[i] = convert(kinds[i], values[i])
	}
	return converted
}

// As a text, but bytes: lib/pq takes a string for what they are, and not for their hexadecimal form.
func untyped(kind, value string) any {
	if kind == "bytea" {
		return unhex(value)
	}
	return value
}

func (a asker) ask(c call, way string, query func() (*sql.Rows, error)) {
	_, err := a.connection.ExecContext(ctx, "BEGIN")
	check(err)
	var answer sql.NullString
	rows, err := query()
	if err == nil {
		if rows.Next() {
			err = rows.Scan(&answer)
		} else {
			err = rows.Err()
		}
		rows.Close()
		if err == nil {
			err = rows.Err()
		}
	}
	if refusal, ok := err.(*pq.Error); ok {
		answer = sql.NullString{String: string(refusal.Code), Valid: true}
	} else {
		check(err)
	}
	_, err = a.connection.ExecContext(ctx, "ROLLBACK")
	check(err)
	*a.said = append(*a.said, []any{"go", way + a.suffix, c.id, answer})
}

func (a asker) inEachWay(c call) {
	direct := func(way string, parameters []any) {
		a.ask(c, way, func() (*sql.Rows, error) { return a.connection.QueryContext(ctx, c.text, parameters...) })
	}
	prepared := func(way string, parameters []any) {
		statement, err := a.connection.PrepareContext(ctx, c.text)
		if err != nil {
			a.ask(c, way, func() (*sql.Rows, error) { return nil, err })
			return
		}
		defer statement.Close()
		for _, again := range []string{"", " again"} {
			a.ask(c, way+again, func() (*sql.Rows, error) { return statement.QueryContext(ctx, parameters...) })
		}
	}
	if c.variant == "literal" {
		direct("simple", nil)
		return
	}
	direct("untyped", all(c.kinds, c.values, untyped))
	prepared("prepared", all(c.kinds, c.values, untyped))
	if c.variant != "plain" {
		return
	}
	direct("native", all(c.kinds, c.natives, native))
	prepared("native prepared", all(c.kinds, c.natives, native))
	if a.suffix == "" {
		direct("native, json as bytes", all(c.kinds, c.natives, bytes))
	}
}

func calls(db *sql.DB) (found []call) {
	rows, err := db.Query(`SELECT id, variant, sql, kinds, "values", natives(kinds, "values") FROM calls ORDER BY id`)
	check(err)
	defer rows.Close()
	for rows.Next() {
		var c call
		check(rows.Scan(&c.id, &c.variant, &c.text, pq.Array(&c.kinds), pq.Array(&c.values), pq.Array(&c.natives)))
		found = append(found, c)
	}
	check(rows.Err())
	return found
}

// The event with tags and a body. A parameter makes it the extended protocol.
func polled(db *sql.DB) string {
	var tags []string
	var body []byte
	transaction, err := db.Begin()
	check(err)
	defer transaction.Rollback()
	check(transaction.QueryRow("SELECT tags, body FROM es_poll($1, 'c')", "bytes").Scan(pq.Array(&tags), &body))
	return fmt.Sprintf("%v %x", tags, body)
}

// What is lib/pq's own: what it is, what is answered, and what must be.
func alone(db *sql.DB) {
	var composite string
	var version, position int64
	check(db.QueryRow("BEGIN; SELECT es_append('a-1', 4, 'a'); ROLLBACK").Scan(&composite))
	check(db.QueryRow("BEGIN; SELECT * FROM es_append('a-1', 4, 'a'); ROLLBACK").Scan(&version, &position))
	var appended string
	transaction, err := db.Begin()
	check(err)
	_, err = transaction.Exec("SELECT es_append($1, 4, 'a', body => $2)", "a-1", `\x00ff`)
	check(err)
	check(transaction.QueryRow("SELECT encode(body, 'hex') FROM es_load('a-1', 4)").Scan(&appended))
	check(transaction.Rollback())
	rows := [][]any{
		{"SELECT f()", strings.HasPrefix(composite, "(5,"), "true"},
		{"SELECT FROM f()", version, "5"},
		{"a string as bytea", appended, hex.EncodeToString([]byte(`\x00ff`))},
		{"tags and body of es_poll", polled(db), "[b with, comma] 00ff5c27"},
	}
	binary, err := sql.Open("postgres", "binary_parameters=yes")
	check(err)
	binary.SetMaxOpenConns(1)
	rows = append(rows, []any{"tags and body of es_poll, binary_parameters", polled(binary), "[b with, comma] 00ff5c27"})
	for _, row := range rows {
		_, err := db.Exec("INSERT INTO said_alone VALUES ('go', $1, $2, $3)", row[0], fmt.Sprint(row[1]), row[2])
		check(err)
	}
}

func main() {
	var said [][]any
	for _, parameters := range []string{"", "binary_parameters=yes"} {
		db, err := sql.Open("postgres", parameters)
		check(err)
		connection, err := db.Conn(ctx)
		check(err)
		suffix := strings.TrimSuffix(", "+strings.TrimSuffix(parameters, "=yes"), ", ")
		for _, c := range calls(db) {
			asker{connection, suffix, &said}.inEachWay(c)
		}
	}
	db, err := sql.Open("postgres", "")
	check(err)
	db.SetMaxOpenConns(1)
	alone(db)
	for _, row := range said {
		_, err := db.Exec("INSERT INTO said VALUES ($1, $2, $3, $4)", row...)
		check(err)
	}
}
