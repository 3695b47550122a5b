"""Django's PostgreSQL backend with live passwords: see `dbx_rotator.django_database`."""
