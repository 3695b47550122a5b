"""What Django loads for `"ENGINE": "dbx_rotator.django"`."""

from typing import Any, Dict, Optional

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base, creation

from .. import connect_kwargs
from .._libraries import live_connection_class

#: Django's words for libpq's.
_SETTINGS = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}


class DatabaseCreation(creation.DatabaseCreation):
    def _get_test_db_name(self) -> str:
        # It is made of the name that the connection has.
        self.connection.fill_in()
        name: str = super()._get_test_db_name()
        return name


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that asks for a live password at each login, also of a pool."""

    creation_class = DatabaseCreation

    def __init__(self, settings_dict: Dict[str, Any], *arguments: Any, **more: Any) -> None:
        super().__init__(settings_dict, *arguments, **more)
        options = self.settings_dict["OPTIONS"]
        pool = options.get("pool")
        if pool:
            own = pool if isinstance(pool, dict) else {}
            options["pool"] = {"connection_class": live_connection_class(self._name), **own}

    @property
    def _name(self) -> Optional[str]:
        name: Optional[str] = self.settings_dict["OPTIONS"].get("dbx_rotator")
        return name

    def fill_in(self) -> Dict[str, Any]:
        """Completes the settings by those of the connection, and returns what a login takes."""
        live = connect_kwargs(self._name)
        for setting, word in _SETTINGS.items():
            # None means `postgres`, and is Django's own.
            if self.settings_dict[setting] == "":
                self.settings_dict[setting] = live[word]
        return live

    def get_connection_params(self) -> Dict[str, Any]:
        live = self.fill_in()
        parameters: Dict[str, Any] = super().get_connection_params()
        parameters.pop("dbx_rotator", None)
        for word in ("sslmode", "sslrootcert"):
            if word in live:
                parameters.setdefault(word, live[word])
        # A pool keeps these for as long as it lives; its sessions ask by themselves.
        if self.alias == NO_DB_ALIAS or not self.settings_dict["OPTIONS"].get("pool"):
            parameters["password"] = live["password"]
        return parameters
