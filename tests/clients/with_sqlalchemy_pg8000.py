import os
import ssl

import sqlalchemy

from tries import token, tries

url = sqlalchemy.URL.create(
    "postgresql+pg8000", host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"], username=os.environ["PGUSER"],
)
tls = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
# A pool that replaces a session at each use of it.
engine = sqlalchemy.create_engine(url, pool_recycle=0, connect_args={"ssl_context": tls})


@sqlalchemy.event.listens_for(engine, "do_connect")
def live_password(dialect, record, cargs, cparams):
    cparams["password"] = token()


def connect():
    with engine.connect() as connection:
        return connection.scalar(sqlalchemy.text("select pg_backend_pid()"))


tries(f"SQLAlchemy {sqlalchemy.__version__}", connect)
