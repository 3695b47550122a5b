import asyncio

import asyncpg

from tries import token, tries

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
pool = loop.run_until_complete(
    asyncpg.create_pool(
        password=token,
        # Each session is used once, so that each is a login.
        max_queries=1,
        min_size=1,
        max_size=2,
    )
)


async def connect():
    async with pool.acquire() as connection:
        return await connection.fetchval("select pg_backend_pid()")


tries(f"asyncpg {asyncpg.__version__}", lambda: loop.run_until_complete(connect()))
