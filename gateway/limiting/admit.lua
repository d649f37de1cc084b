-- The limits of one tenant, counted: all that a request asks is taken, or nothing is. gateway/limiting/gcra.py holds the
-- arithmetic in words; a line before this one sets `now`, in whole milliseconds.
-- KEYS: one for each entry, all in one slot. ARGV[1]: words; the length of a lease in ms, then three for each key:
--   rate, limit, amount     a minute's limit, asked        lease, limit, holder    concurrency, asked
--   force, limit, amount    counted without being asked    keep, 0, holder         a lease held for as long again
--                                                          drop, 0, holder         a lease given back
-- Answer, in words: 1 or 0 (admitted), then remaining, reset in ms and wait in ms (0: none, -1: never) for each key.
-- Words in one text, since each value of a list costs the client more than the script.
local PERIOD, AGAIN, DEEPEST, SLACK = 60000, 1000, 10, 60000
local words = {}
for word in string.gmatch(ARGV[1], '%S+') do words[#words + 1] = word end
local lease_ms = tonumber(words[1])

local function keep_level(key, limit, level)
  if level == 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, string.format('%.0f %.0f', now, level), 'PX', math.ceil(level / limit) + SLACK)
  end
end

-- A debt, unless the key ends before the level does: then the limit was higher when it was written. See `carried`.
local function after_lowering(key, limit, level)
  local ends = redis.call('PTTL', key)
  if ends < 0 or level <= limit * ends then return level end
  level = limit * math.max(PERIOD, ends - SLACK)
  keep_level(key, limit, level)
  return level
end

local function level_of(key, limit)
  local kept = redis.call('GET', key)
  if not kept then return 0 end
  local at, level = string.match(kept, '^(%d+) (%d+)$')
  at, level = tonumber(at), tonumber(level)
  if not at then return 0 end
  if at > now then  -- Redis's clock went back: from now on its time counts
    redis.call('SET', key, string.format('%.0f %.0f', now, level), 'KEEPTTL')
    return level
  end
  level = math.max(0, level - limit * (now - at))
  if limit > 0 and level > limit * PERIOD then return after_lowering(key, limit, level) end
  return level
end

local function lease(key, holder)
  redis.call('ZADD', key, string.format('%.0f', now + lease_ms), holder)
  redis.call('PEXPIRE', key, lease_ms + SLACK)
end

local function rate_asked(key, limit, amount)
  local level, full, wait = level_of(key, limit), limit * PERIOD, 0
  local after = level + amount * PERIOD
  if amount > limit or limit == 0 then wait = -1
  elseif after > full then wait = math.ceil((after - full) / limit) end
  return level, after, wait
end

local function lease_asked(key, limit)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  local held = redis.call('ZCARD', key)
  if limit == 0 then return held, held + 1, -1 end
  if held < limit then return held, held + 1, 0 end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return held, held + 1, math.min(AGAIN, tonumber(first[2]) - now)
end

local counts, admitted = {}, true
for i = 1, #KEYS do
  local verb, limit, what = words[3 * i - 1], tonumber(words[3 * i]), words[3 * i + 1]
  local before, after, wait = 0, 0, 0
  if verb == 'rate' then before, after, wait = rate_asked(KEYS[i], limit, tonumber(what))
  elseif verb == 'lease' then before, after, wait = lease_asked(KEYS[i], limit)
  elseif verb == 'force' then
    local level = level_of(KEYS[i], limit) + tonumber(what) * PERIOD
    keep_level(KEYS[i], limit, math.min(math.max(0, level), DEEPEST * limit * PERIOD))
  elseif verb == 'keep' then lease(KEYS[i], what)
  elseif verb == 'drop' then redis.call('ZREM', KEYS[i], what) end
  if wait ~= 0 then admitted = false end
  counts[i] = {before, after, wait}
end

local answer = {admitted and '1' or '0'}
for i = 1, #KEYS do
  local verb, limit, what = words[3 * i - 1], tonumber(words[3 * i]), words[3 * i + 1]
  local count, left, reset = counts[i][admitted and 2 or 1], 0, 0
  if verb == 'rate' then
    if admitted then keep_level(KEYS[i], limit, count) end
    left = math.floor(math.max(0, limit * PERIOD - count) / PERIOD)
    if limit > 0 then reset = math.ceil(count / limit) end
  elseif verb == 'lease' then
    if admitted then lease(KEYS[i], what) end
    left = math.max(0, limit - count)
  end
  answer[i + 1] = string.format('%.0f %.0f %.0f', left, reset, counts[i][3])
end
return table.concat(answer, ' ')
