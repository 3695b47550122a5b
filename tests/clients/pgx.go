package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

// Set by the linker: what comes from Debian's sources does not know its version.
var version string

func main() {
	config, err := pgxpool.ParseConfig("")
	if err != nil {
		panic(err)
	}
	if os.Getenv("TOKEN_FILE") != "" {
		config.BeforeConnect = func(_ context.Context, one *pgx.ConnConfig) error {
			token, err := os.ReadFile(os.Getenv("TOKEN_FILE"))
			one.Password = string(token)
			return err
		}
	}
	config.LazyConnect = true
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		panic(err)
	}
	fmt.Println("version pgx", version)
	for {
		if pid, err := try(pool); err == nil {
			fmt.Println("ok", pid)
		} else {
			fmt.Println("failed:", strings.Join(strings.Fields(err.Error()), " "))
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func try(pool *pgxpool.Pool) (uint32, error) {
	connection, err := pool.Acquire(context.Background())
	if err != nil {
		return 0, err
	}
	// A closed session is not used again.
	defer connection.Release()
	defer connection.Conn().Close(context.Background())
	return connection.Conn().PgConn().PID(), nil
}
