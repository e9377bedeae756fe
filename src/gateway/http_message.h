// HTTP requests and responses as the handlers see them: no sockets, no Beast.
//
// Plain values; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard::gateway {

// What is known before the body is read.
struct HttpHead {
  std::string method;  // "GET", as sent
  std::string path;    // percent-decoded, without the query
  bool http_1_0 = false;
  bool has_host = false;
  std::string host;    // as sent, with the port if there is one
  std::string origin;  // of the page that asks; only browsers send it
  std::string authorization;
  std::string content_encoding;
};

struct HttpRequest {
  HttpHead head;
  std::string body;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;
};

// How a response's body is delimited.
struct BodyFraming {
  std::optional<std::size_t> length;  // Content-Length
  bool chunked = false;               // neither: the body ends with the connection
};

// The path of a request target in origin or absolute form ("/v1/models?x", "http://host/v1/models"),
// percent-decoded.
// "*" stays as it is; broken escapes are kept as they are.
std::string path_of(std::string_view target);

// Status line and headers, with the empty line at the end. HTTP/1.1 or 1.0 as the request was.
std::string response_head(int status, std::string_view content_type, const HttpHeaders& headers,
                          const BodyFraming& framing, bool http_1_0, bool keep_alive);

std::string_view reason_phrase(int status);

}  // namespace switchyard::gateway
