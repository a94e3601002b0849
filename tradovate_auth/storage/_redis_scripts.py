"""What the Redis storage has the server do, each in one script: nothing happens between its lines.

Of each key of the storage there are, `NAME` being in braces so that a cluster keeps all of them on one node:

    PREFIX:{NAME}:record        a hash: data, and in the clear its revision and generation, and the nonce of its save
    PREFIX:{NAME}:lease         who is inside `exclusive`; lapses by itself
    PREFIX:{NAME}:set-aside:1   what lay there and was no record, the newest first, three at most
    PREFIX:{NAME}:news          a channel: the new generation when that has grown, or "free" when a lease is given back

The scripts are sent whole with each call, which are few: a server that has lost its script cache, or a new master that never
had them, is no case of its own. Each may be repeated when its answer got lost. A server that does not let its user publish
costs its waiters up to a second, nothing else.
"""

from typing import Final

__all__ = ["ASIDE", "EXTEND", "LOAD", "NOW", "PUT_ASIDE", "RELEASE", "SAVE", "TRY"]

ASIDE: Final = 3
"""How many are kept of what was no record."""

_KEPT: Final = """
local kind = redis.call('TYPE', KEYS[1])['ok']
local kept = {false, false, false, false}
if kind == 'hash' then
  kept = redis.call('HMGET', KEYS[1], 'data', 'revision', 'generation', 'nonce')
end
"""

NOW: Final = "return redis.call('TIME')"
"""KEYS: the record's, which only says where to ask. Returns seconds and microseconds."""

LOAD: Final = f"""{_KEPT}
local now = redis.call('TIME')
return {{now[1], now[2], kind, kept[1], kept[2], kept[3], kept[4]}}
"""
"""KEYS: record. Returns the server's time, the type of what lies there, and its fields."""

SAVE: Final = f"""{_KEPT}
local revision, generation, nonce, seen, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if kept[2] == revision and kept[4] == nonce then return {{'saved'}} end
if kind ~= 'none' and (kept[4] or '?') ~= seen then
  return {{'unseen', kind, kept[1], kept[2], kept[3], kept[4]}}
end
if tonumber(revision) ~= tonumber(kept[2] or 0) + 1 then return {{'refused'}} end
if tonumber(generation) < tonumber(kept[3] or generation) then return {{'refused'}} end
redis.call('HSET', KEYS[1], 'data', data, 'revision', revision, 'generation', generation, 'nonce', nonce)
if tonumber(generation) > tonumber(kept[3] or 0) then redis.pcall('PUBLISH', ARGV[6], generation) end
return {{'saved'}}
"""
"""KEYS: record. ARGV: revision, generation, nonce of this save, nonce of the record that the saver can read, data, channel.

Returns 'saved'; or 'refused'; or 'unseen' and what lies there, which the saver has to read before it may replace it.
"""

PUT_ASIDE: Final = f"""{_KEPT}
if kind ~= ARGV[1] then return 0 end
for field = 1, 4 do
  if (kept[field] or '') ~= ARGV[field + 1] then return 0 end
end
for place = #KEYS - 1, 2, -1 do
  if redis.call('EXISTS', KEYS[place]) == 1 then redis.call('RENAME', KEYS[place], KEYS[place + 1]) end
end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
"""
"""KEYS: record, the places aside. ARGV: the type and the fields that were seen. Returns 1, or 0 if something else is there."""

TRY: Final = """
if ARGV[3] ~= '' and redis.call('TYPE', KEYS[2])['ok'] == 'hash' then
  local generation = tonumber(redis.call('HGET', KEYS[2], 'generation'))
  if generation and generation > tonumber(ARGV[3]) then return {'newer'} end
end
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {'held'}
end
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return {'taken', holder, left}
"""
"""KEYS: lease, record. ARGV: owner, milliseconds, the generation that was seen or nothing.

Returns 'newer', which is looked for first; or 'held'; or 'taken', by whom and for how many milliseconds. A lease without an
end, which nobody here makes, is given one.
"""

EXTEND: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS: lease. ARGV: owner, milliseconds. Returns 1, or 0 if it is not this owner's (any more)."""

RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.pcall('PUBLISH', ARGV[2], 'free')
return redis.call('DEL', KEYS[1])
"""
"""KEYS: lease. ARGV: owner, channel. Returns 1, or 0 if it was not this owner's (any more)."""
