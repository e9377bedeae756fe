#include "gateway/api_keys.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <span>

#include "gateway/api_error.h"

namespace switchyard::gateway {
namespace {

Sha256Digest digest_of(std::string_view key) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(key.data(), key.size())));
  return hash.finish();
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_loopback(std::string_view host) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  std::string name(host.substr(0, 100));
  std::transform(name.begin(), name.end(), name.begin(), lower);
  if (name == "localhost") return true;
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(name, error);
  return !error && address.is_loopback();
}

// "localhost:8000", "[::1]:8000", "127.0.0.1": the part before the port.
std::string_view without_port(std::string_view host) {
  const auto bracket = host.rfind(']');
  const auto colon = host.rfind(':');
  const bool has_port =
      colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
  return has_port ? host.substr(0, colon) : host;
}

HttpResponse refusal(int status, std::string message, std::string code) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  error.code = std::move(code);
  auto response = error_response(error);
  if (status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(digest_of(key));
}

std::optional<std::uint32_t> ApiKeys::find(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (digests_.empty() || authorization.size() < kScheme.size()) return std::nullopt;
  const bool bearer = std::equal(kScheme.begin(), kScheme.end(), authorization.begin(),
                                 [](char a, char b) { return a == lower(b); });
  if (!bearer) return std::nullopt;
  const Sha256Digest offered = digest_of(authorization.substr(kScheme.size()));
  std::uint32_t found = 0;
  for (std::size_t index = 0; index < digests_.size(); ++index) {
    unsigned difference = 0;
    for (std::size_t i = 0; i < offered.size(); ++i)
      difference |= static_cast<unsigned>(digests_[index][i] ^ offered[i]);
    // Without a branch on the outcome.
    found |= static_cast<std::uint32_t>(index + 1) * static_cast<std::uint32_t>(difference == 0);
  }
  return found > 0 ? std::optional(found) : std::nullopt;
}

AccessRules::AccessRules(const std::vector<std::string>& api_keys, const std::vector<std::string>& admin_keys,
                         const std::string& host)
    : clients_(api_keys), admins_(admin_keys), loopback_(is_loopback(host)) {}

std::optional<HttpResponse> AccessRules::refuse_client(const HttpHead& head) const {
  if (clients_.empty() || clients_.find(head.authorization)) return std::nullopt;
  return refusal(401,
                 head.authorization.empty() ? "No API key was given: send it as 'Authorization: Bearer KEY'."
                                            : "The API key is not one of this server's.",
                 "invalid_api_key");
}

std::optional<HttpResponse> AccessRules::refuse_admin(const HttpHead& head) const {
  if (!admins_.empty()) {
    if (admins_.find(head.authorization)) return std::nullopt;
    if (clients_.find(head.authorization)) {
      return refusal(403, "Admin calls need one of the server's admin_keys; this is one of its api_keys.",
                     "admin_key_required");
    }
    return refusal(401,
                   head.authorization.empty()
                       ? "No admin key was given: send it as 'Authorization: Bearer KEY'."
                       : "The key is not one of this server's admin keys.",
                   "invalid_api_key");
  }
  if (!clients_.empty() || !loopback_) {
    return refusal(
        403,
        "Admin calls are not open on this server: it has api_keys or listens on more than loopback, "
        "and no admin_keys. Put admin_keys into its configuration and start it again.",
        "admin_not_configured");
  }
  // A page from elsewhere in a browser on this machine can send requests here, too: it has an origin of its
  // own, or came under a name of its own that it made to mean this machine.
  const bool own_name = head.host.empty() || is_loopback(without_port(head.host));
  const bool own_origin = head.origin.empty() || head.origin == "http://" + head.host;
  if (own_name && own_origin) return std::nullopt;
  return refusal(
      403,
      "Admin calls from other sites' pages are refused while the server has no admin_keys. Ask from "
      "this machine under a loopback address, or configure admin_keys.",
      "admin_not_configured");
}

}  // namespace switchyard::gateway
