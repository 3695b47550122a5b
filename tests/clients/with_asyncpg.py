import asyncio

import asyncpg

from tries import tries


async def connect():
    connection = await asyncpg.connect()
    try:
        return connection.get_server_pid()
    finally:
        await connection.close()


tries(f"asyncpg {asyncpg.__version__}", lambda: asyncio.run(connect()))
