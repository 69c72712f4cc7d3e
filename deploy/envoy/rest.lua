-- Refuses paths that are too long, and finishes REST responses after the transcoder made JSON of them. Native gRPC
-- responses are left alone.

local LONGEST_PATH = 2048

local BAD_REQUEST = '{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":'
  .. '[{"field":"%s","description":"%s"}]}'

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
    if value ~= nil then
      description = value .. " is not " .. (KINDS[kind] or "one of its words")
    end
    field = field:gsub("%[%d+%]", "") -- Envoy counts the items of a list wrongly
    return code .. details .. "," .. BAD_REQUEST:format(field, description) .. '],"message":"' .. field .. ": " .. description .. '"}'
  end
  if message == "" or message == "Bad Request" then
    message = "the path or a header is malformed"
  else
    message = "the body does not fit: " .. message:gsub("\\n.*$", ""):gsub("^: ", "")
  end
  return code .. details .. '],"message":"' .. message .. '"}'
end

function envoy_on_request(handle)
  if #handle:headers():get(":path") > LONGEST_PATH then
    handle:respond({ [":status"] = "414" }, "")
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
    else
      headers:remove("location")
    end
  end
  local content_type = handle:metadata():get("content_type")
  if content_type ~= nil and headers:get(":status") == "200" then
    headers:replace("content-type", content_type)
  end
  if headers:get("x-edge-reply") ~= nil then
    headers:remove("x-edge-reply")
    local body = handle:body() -- waits for all of it; `headers` is out of reach from here on
    body:setBytes(name_the_field(body:getBytes(0, body:length())))
  end
end
