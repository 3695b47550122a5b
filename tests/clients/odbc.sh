driver=$(ls /usr/lib/*/odbc/psqlodbcw.so | head -n 1)
connection="Driver=$driver;Server=$PGHOST;Port=$PGPORT;Database=$PGDATABASE;UID=$PGUSER;SSLmode=verify-full;pqopt={sslrootcert=$PGSSLROOTCERT}"
. "${0%/*}/isql.sh"
