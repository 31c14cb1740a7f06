// Bank accounts in an event store, with lib/pq: doc/tutorial/go.md.
package main

import (
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

type event struct {
	Version int64
	ID      string
	Type    string
	Data    struct{ Amount int64 }
}

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// appendEvent appends one event and returns its version and position.
func appendEvent(db *sql.DB, stream string, expected any, kind string, data any, id string) (
	version, position int64, err error) {
	text, err := json.Marshal(data)
	if err != nil {
		return 0, 0, err
	}
	err = db.QueryRow(`SELECT version, position FROM es_append($1, $2, $3, $4, id => $5)`,
		stream, expected, kind, string(text), id).Scan(&version, &position)
	if err != nil {
		return 0, 0, fmt.Errorf("append to %s: %w", stream, err)
	}
	return version, position, nil
}

func isConflict(err error) bool {
	var failure *pq.Error
	return errors.As(err, &failure) && failure.Code == "ES001"
}

func openAccount(db *sql.DB) error {
	id := newID()
	for _, word := range []string{"opened", "opened again"} {
		version, _, err := appendEvent(db, "account-1", "none", "opened", map[string]any{"owner": "Ann"}, id)
		if err != nil {
			return err
		}
		fmt.Printf("%s, version %d\n", word, version)
	}
	if _, _, err := appendEvent(db, "account-1", 1, "deposited", map[string]any{"amount": 100}, newID()); err != nil {
		return err
	}
	_, _, err := appendEvent(db, "account-1", 1, "deposited", map[string]any{"amount": 100}, newID())
	if !isConflict(err) {
		return fmt.Errorf("expected a conflict: %w", err)
	}
	fmt.Println("conflict:", err)
	return nil
}

func load(db *sql.DB, stream string) (events []event, err error) {
	rows, err := db.Query(`SELECT version, id, type, data FROM es_load($1)`, stream)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", stream, err)
	}
	defer rows.Close()
	for rows.Next() {
		var e event
		var data []byte
		if err := rows.Scan(&e.Version, &e.ID, &e.Type, &data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &e.Data); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

func fold(events []event) (balance int64) {
	for _, e := range events {
		switch e.Type {
		case "deposited":
			balance += e.Data.Amount
		case "withdrawn":
			balance -= e.Data.Amount
		}
	}
	return balance
}

type refused struct{ left int64 }

func (r refused) Error() string { return fmt.Sprintf("only %d left", r.left) }

// withdraw loads, decides and appends, again if another writer was faster. It returns the version.
func withdraw(db *sql.DB, stream string, amount int64, commandID string) (int64, error) {
	for attempt := 0; attempt < 10; attempt++ {
		events, err := load(db, stream)
		if err != nil {
			return 0, err
		}
		for _, e := range events {
			if e.ID == commandID { // an earlier attempt, whose answer was lost
				return e.Version, nil
			}
		}
		if left := fold(events); left < amount {
			return 0, refused{left}
		}
		data := map[string]any{"amount": amount}
		version, _, err := appendEvent(db, stream, len(events), "withdrawn", data, commandID)
		if !isConflict(err) {
			return version, err
		}
	}
	return 0, fmt.Errorf("too many writers of %s", stream)
}

func withdrawOften(db *sql.DB) error {
	answers := make([]string, 4)
	var group sync.WaitGroup
	for i := range answers {
		group.Add(1)
		go func(answer *string) {
			defer group.Done()
			*answer = "done"
			if _, err := withdraw(db, "account-1", 30, newID()); err != nil {
				*answer = err.Error()
			}
		}(&answers[i])
	}
	group.Wait()
	sort.Strings(answers)
	fmt.Println("four withdrawals of 30:", strings.Join(answers, ", "))

	commandID := newID()
	for _, word := range []string{"withdrawn", "withdrawn again"} {
		version, err := withdraw(db, "account-1", 5, commandID)
		if err != nil {
			return err
		}
		fmt.Printf("%s, version %d\n", word, version)
	}
	events, err := load(db, "account-1")
	if err != nil {
		return err
	}
	fmt.Println("balance", fold(events), "at version", len(events))
	return nil
}

func readOwnWrite(db *sql.DB) error {
	_, position, err := appendEvent(db, "account-1", 6, "deposited", map[string]any{"amount": 20}, newID())
	if err != nil {
		return err
	}
	if _, err := db.Exec(`SELECT es_wait('balance', $1)`, position); err != nil {
		return err
	}
	var amount int64
	if err := db.QueryRow(`SELECT amount FROM balance WHERE account = 'account-1'`).Scan(&amount); err != nil {
		return err
	}
	fmt.Println("read model:", amount)
	return nil
}

type delivery struct {
	token   int64
	stream  string
	version int64
}

func poll(db *sql.DB, name string) (deliveries []delivery, err error) {
	rows, err := db.Query(`SELECT token, stream, version FROM es_poll('mails', consumer => $1, wait => '1s')`, name)
	if err != nil {
		return nil, fmt.Errorf("poll as %s: %w", name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var d delivery
		if err := rows.Scan(&d.token, &d.stream, &d.version); err != nil {
			return nil, err
		}
		deliveries = append(deliveries, d)
	}
	return deliveries, rows.Err()
}

// consume handles events until there are no more.
func consume(db *sql.DB, name string, handle func(delivery)) error {
	for {
		deliveries, err := poll(db, name)
		if err != nil || len(deliveries) == 0 {
			return err
		}
		for _, d := range deliveries {
			handle(d) // here the mail would be sent
		}
		if _, err := db.Exec(`SELECT es_ack('mails', $1)`, deliveries[0].token); err != nil {
			return err
		}
	}
}

func consumeSideBySide(db *sql.DB) error {
	const events = `[{"type": "opened", "data": {"owner": "Bob"}}, {"type": "deposited", "data": {"amount": 7}}]`
	for _, stream := range []string{"account-2", "account-3", "account-4"} {
		if _, err := db.Exec(`SELECT es_append_batch($1, 'none', $2::jsonb)`, stream, events); err != nil {
			return err
		}
	}

	var mutex sync.Mutex
	handled := map[string][]string{}
	ended := make(chan error, 2)
	for _, name := range []string{"mails-1", "mails-2"} {
		go func(name string) {
			ended <- consume(db, name, func(d delivery) {
				mutex.Lock()
				defer mutex.Unlock()
				handled[d.stream] = append(handled[d.stream], fmt.Sprint(d.version))
			})
		}(name)
	}
	for i := 0; i < 2; i++ {
		if err := <-ended; err != nil {
			return err
		}
	}
	for _, stream := range []string{"account-1", "account-2", "account-3", "account-4"} {
		fmt.Printf("%s: %s\n", stream, strings.Join(handled[stream], " "))
	}
	return nil
}

func listen(db *sql.DB) error {
	listener := pq.NewListener("", time.Second, time.Minute, nil)
	defer listener.Close()
	if err := listener.Listen("es_events:account"); err != nil {
		return err
	}
	var horizon int64
	if err := db.QueryRow(`SELECT es_horizon()`).Scan(&horizon); err != nil {
		return err
	}
	if _, _, err := appendEvent(db, "account-4", 2, "withdrawn", map[string]any{"amount": 7}, newID()); err != nil {
		return err
	}
	for range listener.Notify {
		var stream, kind string
		err := db.QueryRow(`SELECT stream, type FROM es_read_category('account', $1)`, horizon).Scan(&stream, &kind)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			fmt.Println("woken:", stream, kind)
		}
		return err
	}
	return errors.New("the listener was closed")
}

func main() {
	db, err := sql.Open("postgres", "")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	for _, step := range []func(*sql.DB) error{openAccount, withdrawOften, readOwnWrite, consumeSideBySide, listen} {
		if err := step(db); err != nil {
			log.Fatal(err)
		}
	}
}
