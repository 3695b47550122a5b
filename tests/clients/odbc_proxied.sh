# With a password that it keeps, as a data source of ODBC has one.
driver=$(ls /usr/lib/*/odbc/psqlodbcw.so | head -n 1)
connection="Driver=$driver;Server=127.0.0.1;Port=$PROXY_PORT;Database=$PGDATABASE;UID=$PGUSER;PWD=$PGPASSWORD"
. "${0%/*}/isql.sh"
