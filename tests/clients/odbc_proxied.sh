# With a password that it keeps, as a data source of ODBC has one.
. "${0%/*}/tries.sh"
driver=$(ls /usr/lib/*/odbc/psqlodbcw.so | head -n 1)
connection="Driver=$driver;Server=127.0.0.1;Port=$PROXY_PORT;Database=$PGDATABASE;UID=$PGUSER;PWD=$PGPASSWORD"
connect() {
  said=$(echo 'select pg_backend_pid()' | isql -b -v -d, -k "$connection" 2>&1)
  echo "$said"
  [ "$said" -gt 0 ] 2>/dev/null
}
echo "version psqlodbc $(dpkg-query -Wf '${Version}' odbc-postgresql | sed 's/.*://; s/-.*//')"
tries connect
