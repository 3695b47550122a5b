import os

import django
from django.conf import settings
from django.db import connection

from tries import tries

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
            # No PASSWORD: libpq then looks into the password file.
        }
    }
)
django.setup()


def connect():
    try:
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            return cursor.fetchone()[0]
    finally:
        connection.close()


tries(f"Django {django.get_version()}", connect)
