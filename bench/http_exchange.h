// One HTTP request over a connection of its own, and its answer as it comes. Asynchronous: many of them share
// an io_context and its one thread.
//
// Every wait has a limit: connecting, sending, and each wait for more of the answer. The exchange lives until
// `ended` was called, which happens exactly once, whatever comes; cancel() makes it happen soon.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::bench {

// http://HOST[:PORT][/], without anything behind.
struct ServerAddress {
  std::string host;
  std::string port = "80";

  // Errors: invalid, unsupported (https).
  static Result<ServerAddress> parse(std::string_view url);
};

using Endpoints = std::vector<boost::asio::ip::tcp::endpoint>;
// Errors: not_found. Blocks for as long as the system's resolver does.
Result<Endpoints> resolve(const ServerAddress& server);

struct HttpCall {
  std::string method = "GET";
  std::string target = "/";
  std::string host;
  std::string api_key;  // empty: none
  std::string body;     // JSON
  Nanos connect_limit = std::chrono::seconds(10);
  Nanos silence_limit = std::chrono::seconds(120);  // without a byte of the answer
};

struct HttpAnswer {
  int status = 0;          // 0: none came
  double retry_after = 0;  // seconds; 0: the server does not say
  Status end;              // good: the answer is complete
};

struct HttpHandlers {
  std::function<void(std::string_view bytes)> body;  // of the answer, whatever its status
  std::function<void(HttpAnswer answer)> ended;
};

class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  // Ends with the error `cancelled`. On the io_context's thread.
  virtual void cancel() = 0;

  // Body bytes over `max_body` end it with an error.
  static std::shared_ptr<HttpExchange> start(boost::asio::io_context& context, const Endpoints& endpoints,
                                             HttpCall call, HttpHandlers handlers);
  static constexpr std::uint64_t kMaxBody = std::uint64_t{1} << 28;
};

// A whole exchange on an io_context of its own: the body of a 200. Errors: io (another status, with the
// server's words), timed_out.
Result<std::string> http_get(const Endpoints& endpoints, const ServerAddress& server, std::string target,
                             std::string api_key, Nanos limit);

}  // namespace switchyard::bench
