"""Bringing a database to the newest schema."""

from alembic.config import Config

from alembic import command
from onsale.resources import project_folder


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrade to a revision; harmless when it is there already. Not from within an event loop."""
    command.upgrade(config(database_url), revision)


def config(database_url: str) -> Config:
    """Alembic's configuration for a database."""
    settings = Config()
    settings.set_main_option("script_location", str(project_folder("alembic")))
    settings.attributes["database_url"] = database_url
    return settings
