-- http-request lua.portal RULE: asks the portal whether this call may go on. Only its 200 allows; anything else,
-- no answer included, ends the call here, with the portal's own words where there are any.
local portal = assert(os.getenv("PORTAL"), "haproxy.cfg sets PORTAL above lua-load")
local IDENTITY = {"status", "code", "key", "organization", "environment", "scopes", "key-expires", "request"}
local RELAYED = {"content-type", "cache-control", "retry-after", "www-authenticate", "ratelimit", "ratelimit-policy",
    "x-content-type-options", "content-security-policy", "x-portal-code", "x-portal-request",
    "x-portal-key-expires"}
-- Of the client's headers the portal sees these and no others.
local ASKED = {"authorization", "x-api-key", "access-control-request-method", "user-agent"}

local function refuse(txn, status, headers, body)
    local reply = txn:reply({status = status})
    for _, name in ipairs(RELAYED) do
        for _, value in pairs(headers[name] or {}) do
            reply:add_header(name, value)
        end
    end
    reply:set_body(body)
    txn:done(reply)
end

local function ask(txn, rule)
    local sent = {
        ["x-original-method"] = {txn.f:method()},
        ["x-original-uri"] = {txn.f:pathq()},
        ["x-forwarded-for"] = {txn.f:src()},
        ["x-forwarded-proto"] = {txn.f:ssl_fc() == 1 and "https" or "http"},
    }
    local given = txn.http:req_get_headers()
    for _, name in ipairs(ASKED) do
        if given[name] then
            sent[name] = {}
            for _, value in pairs(given[name]) do
                table.insert(sent[name], value)
            end
        end
    end
    return core.httpclient():get({url = portal .. "/gateway/authorize?" .. rule, headers = sent, timeout = 5000})
end

core.register_action("portal", {"http-req"}, function(txn, rule)
    local asked, answer = pcall(ask, txn, rule)
    if not asked or not answer or not answer.headers or not answer.headers["x-portal-status"] then
        return refuse(txn, 503, {["retry-after"] = {"1"}}, "")  -- not the portal's answer
    end
    if answer.status ~= 200 then
        return refuse(txn, answer.status, answer.headers, answer.body or "")
    end
    for _, name in ipairs(IDENTITY) do
        local values = answer.headers["x-portal-" .. name]
        txn.http:req_set_header("x-portal-" .. name, values and values[0] or "")
    end
    local expires = answer.headers["x-portal-key-expires"]
    if expires and expires[0] ~= "" then
        txn:set_var("txn.portal_key_expires", expires[0])
    end
    txn:set_var("txn.portal_allowed", "yes")
end, 1)
