-- Refuses paths that are too long, bodies that say that they are no JSON, and queries that say what stands elsewhere or say
-- it twice; finishes REST responses after the transcoder made JSON of them. Native gRPC
-- responses are left alone.

local LONGEST_PATH = 2048

local BAD_REQUEST = '{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":'
  .. '[{"field":"%s","description":"%s"}]}'

-- The second is what curl says of a body unless it is told otherwise. A body need not say what it is.
local JSON_TYPES = { ["application/json"] = true, ["application/x-www-form-urlencoded"] = true, [""] = true }

-- Fields that paths have, and with what those begin.
local IN_PATH = { request_id = "/api/v1/purchase-requests/", book_id = "/api/v1/books/" }

local REPEATED = { conditions = true, statuses = true }

local KINDS = { TYPE_DOUBLE = "a number", TYPE_INT32 = "a whole number", TYPE_STRING = "a string" }

-- Envoy's own 400 names the field in its text at best. Puts it where a gateway's 400 has it, into a BadRequest, and drops
-- the excerpt of the body, which may hold a payment token. `body` is the JSON of local_reply_config, with `message` last;
-- everything taken from `message` stays escaped.
local function name_the_field(body)
  local code, details, message = body:match('^({"code":%d+,"details":%[)(.*)%],"message":"(.*)"}%s*$')
  if message == nil then
    return body
  end
  local field, description = message:match("^([%w_%.%[%]]+): (.*)$")
  if field == nil then
    field = message:match('^Could not find field \\"(.-)\\"')
    description = "there is no such parameter"
  end
  if field == nil then
    field = message:match("^: invalid value Starting an object on a scalar field for type ([%w_]+)$")
    description = "must not be an object"
  end
  if field ~= nil then
    local value, kind = description:match("^invalid value (.*) for type ([%w_%./]+)$")
    if value ~= nil and value:find("Illegal timestamp format", 1, true) then
      description = "must be a time such as 2026-01-01T00:00:00Z"
    elseif value ~= nil then
      description = value .. " is not " .. (KINDS[kind] or "one of its words")
    end
    field = field:gsub("%[%d+%]", "") -- Envoy counts the items of a list wrongly
    return code .. details .. "," .. BAD_REQUEST:format(field, description) .. '],"message":"' .. field .. ": " .. description .. '"}'
  end
  if message == "" or message == "Bad Request" then
    message = "the path or a header is malformed"
  else
    -- The excerpt comes after a line break, which is written in one of two ways.
    message = "the body does not fit: " .. message:gsub("\\n.*$", ""):gsub("\\u000a.*$", ""):gsub("^: ", "")
  end
  return code .. details .. '],"message":"' .. message .. '"}'
end

-- Gives what is wrong with a query: a parameter and why. Names that no field could have are left to the transcoder, which
-- refuses all that it does not know; but it would let the query change what the path or the body says, and of a parameter
-- that stands there twice it would take the last.
local function wrong_in_query(path, has_body)
  local before, query = path:match("^([^?]*)%?(.*)$")
  local seen = {}
  for parameter in (query or ""):gmatch("[^&]+") do
    local name = (parameter:match("^[^=]+") or ""):gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end)
    if name:match("^[%w_%.]+$") then
      if has_body then
        return name, "belongs into the body, not into the query"
      end
      local field = name:gsub("%u", function(letter) return "_" .. letter:lower() end)
      if before:sub(1, #(IN_PATH[field] or "?")) == IN_PATH[field] then
        return name, "stands in the path already"
      end
      if seen[field] and not REPEATED[field] then
        return name, "must be there once"
      end
      seen[field] = true
    end
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  if #path > LONGEST_PATH then
    handle:respond({ [":status"] = "414" }, "")
    return
  end
  if path:match("^[^?]*"):gsub("%%%x%x", ""):find("%", 1, true) then
    handle:respond({ [":status"] = "400" }, "")
    return
  end
  local method = headers:get(":method")
  local has_body = method ~= "GET" and method ~= "HEAD" and method ~= "OPTIONS"
  local field, why = wrong_in_query(path, has_body)
  if field ~= nil then
    handle:respond({ [":status"] = "400" }, field .. ": " .. why)
    return
  end
  if not has_body then
    return
  end
  local content_type = (headers:get("content-type") or ""):lower():match("^[^;%s]*")
  if not JSON_TYPES[content_type] then
    handle:respond({ [":status"] = "415" }, "")
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("x-http-status")
  headers:remove("x-http-status")
  if (headers:get("content-type") or ""):sub(1, 16) ~= "application/json" then
    return
  end
  for _, name in ipairs({ "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-accept-encoding" }) do
    headers:remove(name)
  end
  local answered = headers:get(":status")
  if (answered == "429" or answered == "503") and headers:get("retry-after") == nil then
    headers:add("retry-after", "1") -- as the RetryInfo of both has it
  end
  if status ~= nil then
    -- It was said before the gateway was done: the call may have failed since, or been cut off.
    if status:sub(1, 1) == headers:get(":status"):sub(1, 1) then
      headers:replace(":status", status)
      if status == "204" then
        headers:remove("content-type")
      end
    else
      headers:remove("location")
    end
  end
  local content_type = handle:metadata():get("content_type")
  if content_type ~= nil and headers:get(":status") == "200" then
    headers:replace("content-type", content_type)
  end
  local by_edge = headers:get("x-edge-reply") ~= nil
  headers:remove("x-edge-reply")
  if by_edge or answered:sub(1, 1) == "4" or answered:sub(1, 1) == "5" then
    local body = handle:body() -- waits for all of it; `headers` is out of reach from here on
    if body == nil then
      return
    end
    local text = body:getBytes(0, body:length())
    if by_edge then
      text = name_the_field(text)
    end
    -- What the transcoder prints of details that are not set. Within a string each quote has a backslash before it.
    text = text:gsub(',"metadata":{}', ""):gsub(',"reason":""', "")
    body:setBytes(text)
  end
end
