import psycopg
import psycopg_pool

from tries import tries

# Sessions are never handed out twice, so that each is a login.
pool = psycopg_pool.ConnectionPool(min_size=1, max_size=2, max_lifetime=0.001, open=True)


def connect():
    with pool.connection(timeout=20) as connection:
        return connection.info.backend_pid


tries(f"psycopg_pool {psycopg_pool.__version__}", connect)
