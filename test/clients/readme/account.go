package main

import (
	"database/sql"
	"errors"
	"fmt"
	"log"

	"github.com/lib/pq"
)

func main() {
	db, err := sql.Open("postgres", "")
	if err != nil {
		log.Fatal(err)
	}
	show(db)
}

func show(db *sql.DB) {
	// README
	for rows.Next() {
		var version, kind, data string
		rows.Scan(&version, &kind, &data)
		fmt.Printf("['%s']\n", kind)
	}
}
