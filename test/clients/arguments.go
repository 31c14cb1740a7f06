// Names functions by parameters of lib/pq, in prepared statements.
package main

import (
	"database/sql"
	"fmt"
	"os"

	"github.com/lib/pq"
)

var statements = map[string]*sql.Stmt{}

func call(db *sql.DB, function, text string, parameters ...any) {
	if statements[function] == nil {
		statement, err := db.Prepare(text)
		check(err)
		statements[function] = statement
	}
	rows, err := statements[function].Query(parameters...)
	if err, ok := err.(*pq.Error); ok && function == "refused" {
		fmt.Println(function, err.Code)
		return
	}
	check(err)
	columns, err := rows.Columns()
	check(err)
	values := make([]sql.NullString, len(columns))
	places := make([]any, len(columns))
	for i := range values {
		places[i] = &values[i]
	}
	for rows.Next() {
		check(rows.Scan(places...))
		fmt.Print(function)
		for _, value := range values {
			if value.String != "" {
				fmt.Print(" ", value.String)
			}
		}
		fmt.Println()
	}
	check(rows.Err())
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	db, err := sql.Open("postgres", "")
	check(err)
	db.SetMaxOpenConns(1)
	for _, n := range []string{"1", "2"} {
		call(db, "es_execute", "SELECT version, events FROM es_execute($1, $2, $3, $4)", "c-1", "decide", `{"n": `+n+`}`, "es_merge")
		call(db, "es_state", "SELECT state::text, version FROM es_state($1, $2)", "c-1", "public.es_merge")
		call(db, "es_history", "SELECT count(*) FROM es_history($1, $2)", "c-1", "es_last(jsonb, es_recorded_event)")
		call(db, "es_snapshot", "SELECT es_snapshot($1, $2::text)", "c-1", "es_merge")
		call(db, "es_receive", "SELECT es_receive($1, $2, $3, $4)", "t", "g", n, "receive")
		call(db, "es_define_upcaster", "SELECT es_define_upcaster($1, 1, $2)", "counted", "upcast")
	}
	call(db, "es_create_projection", "SELECT es_create_projection($1, $2)", "p", "handle")
	call(db, "refused", "SELECT es_state($1, $2)", "c-1", "nothing")
}
