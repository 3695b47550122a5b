import os

import sqlalchemy

from tries import tries

url = sqlalchemy.URL.create(
    "postgresql+psycopg", host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"], username=os.environ["PGUSER"],
)
# A pool that replaces a session at each use of it.
engine = sqlalchemy.create_engine(url, pool_pre_ping=True, pool_recycle=0)


def connect():
    with engine.connect() as connection:
        return connection.scalar(sqlalchemy.text("select pg_backend_pid()"))


tries(f"SQLAlchemy {sqlalchemy.__version__}", connect)
