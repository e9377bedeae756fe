// Who may ask: API keys, and who may administer the server.
//
// Immutable; any thread. Keys are kept and compared as SHA-256 digests, all of them, in time that does not
// depend on where they differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"
#include "gateway/http_message.h"

namespace switchyard::gateway {

class ApiKeys {
 public:
  explicit ApiKeys(const std::vector<std::string>& keys);
  bool empty() const { return digests_.empty(); }
  // Which of the keys `authorization` ("Bearer KEY") holds, from 1; nothing: none of them.
  std::optional<std::uint32_t> find(std::string_view authorization) const;

 private:
  std::vector<Sha256Digest> digests_;
};

class AccessRules {
 public:
  // `host`: what the server listens on.
  AccessRules(const std::vector<std::string>& api_keys, const std::vector<std::string>& admin_keys,
              const std::string& host);

  // A response refuses the request. Each API route: 401 without one of the keys, if there are any.
  std::optional<HttpResponse> refuse_client(const HttpHead& head) const;
  // Admin routes: an admin key; where none is configured, only on a server without any keys that listens on
  // loopback, and not from pages of other sites, which a browser on this machine may show (403).
  std::optional<HttpResponse> refuse_admin(const HttpHead& head) const;
  // A number that stays the same for a key; 0 without keys.
  std::uint32_t client_of(const HttpHead& head) const {
    return clients_.find(head.authorization).value_or(0);
  }

 private:
  ApiKeys clients_;
  ApiKeys admins_;
  bool loopback_;
};

}  // namespace switchyard::gateway
