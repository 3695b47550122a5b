import os
import ssl

import pg8000
import pg8000.dbapi

from tries import token, tries

tls = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
where = {
    "host": os.environ["PGHOST"],
    "port": int(os.environ["PGPORT"]),
    "database": os.environ["PGDATABASE"],
    "user": os.environ["PGUSER"],
}


def connect():
    connection = pg8000.dbapi.connect(password=token(), ssl_context=tls, **where)
    try:
        cursor = connection.cursor()
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]
    finally:
        connection.close()


tries(f"pg8000 {pg8000.__version__}", connect)
