"""Rate limits: so many in a window of time, counted in the database so that every process counts together."""

from __future__ import annotations

import sqlalchemy as sa

from advgym.leaderboards.store.db import Store
from advgym.leaderboards.store.tables import rate


def allow(store: Store, key: str, limit: int, window_s: int = 60) -> bool:
    """Count one more of `key`, and say whether it is within `limit` of this window of `window_s` seconds."""
    window = int(store.clock()) // window_s * window_s
    insert = store.insert(rate).values(key=key[:200], window=window, count=1)
    more = insert.on_conflict_do_update(index_elements=["key", "window"], set_={"count": rate.c.count + 1})
    with store.write(durable=False) as connection:
        count = connection.scalar(more.returning(rate.c.count))
        if count == 1:  # a new window: forget those of long ago
            connection.execute(sa.delete(rate).where(rate.c.window < window - 86400))
    return int(count) <= limit
