#include "http_exchange.h"

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <charconv>

#include "event_stream.h"

namespace switchyard::bench {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using ErrorId = boost::system::error_code;

class Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(asio::io_context& context, HttpCall call, HttpHandlers handlers)
      : stream_(context), call_(std::move(call)), handlers_(std::move(handlers)) {}

  void start(const Endpoints& endpoints) {
    const auto verb = http::string_to_verb(call_.method);
    request_.method(verb);
    request_.target(call_.target);
    request_.version(11);
    request_.set(http::field::host, call_.host);
    request_.set(http::field::user_agent, "switchyard-bench");
    request_.set(http::field::connection, "close");
    if (!call_.api_key.empty()) request_.set(http::field::authorization, "Bearer " + call_.api_key);
    if (!call_.body.empty()) {
      request_.set(http::field::content_type, "application/json");
      request_.body() = std::move(call_.body);
    }
    request_.prepare_payload();
    parser_.body_limit(kMaxBody);
    stream_.expires_after(call_.connect_limit);
    stream_.async_connect(endpoints, [self = shared_from_this()](ErrorId error, const tcp::endpoint&) {
      if (error) return self->finish(self->failure(error, "cannot connect"));
      ErrorId ignored;
      self->stream_.socket().set_option(tcp::no_delay(true), ignored);
      self->send();
    });
  }

  void cancel() override {
    cancelled_ = true;
    stream_.cancel();
    ErrorId ignored;
    stream_.socket().close(ignored);
  }

 private:
  void send() {
    stream_.expires_after(call_.connect_limit);
    http::async_write(stream_, request_, [self = shared_from_this()](ErrorId error, std::size_t) {
      if (error) return self->finish(self->failure(error, "cannot send the request"));
      self->read_head();
    });
  }

  void read_head() {
    stream_.expires_after(call_.silence_limit);
    http::async_read_header(
        stream_, buffer_, parser_, [self = shared_from_this()](ErrorId error, std::size_t) {
          if (error) return self->finish(self->failure(error, "no answer"));
          self->answer_.status = self->parser_.get().result_int();
          const auto text = self->parser_.get()[http::field::retry_after];
          double seconds = 0;
          const auto read = std::from_chars(text.data(), text.data() + text.size(), seconds);
          if (read.ec == std::errc() && seconds > 0 && seconds < 1e9) self->answer_.retry_after = seconds;
          self->read_body();
        });
  }

  void read_body() {
    if (parser_.is_done()) return finish({});
    parser_.get().body().data = bytes_.data();
    parser_.get().body().size = bytes_.size();
    stream_.expires_after(call_.silence_limit);
    http::async_read_some(stream_, buffer_, parser_, [self = shared_from_this()](ErrorId error, std::size_t) {
      // The body's buffer is full; there is more.
      if (error == http::error::need_buffer) error = {};
      const std::size_t count = self->bytes_.size() - self->parser_.get().body().size;
      if (count > 0) self->handlers_.body({self->bytes_.data(), count});
      if (error) return self->finish(self->failure(error, "the answer broke off"));
      self->read_body();
    });
  }

  Status failure(ErrorId error, std::string_view what) const {
    if (cancelled_) return fail(ErrorCode::cancelled, "called off");
    if (error == beast::error::timeout) return fail(ErrorCode::timed_out, "{}: nothing came in time", what);
    const bool early = error == http::error::end_of_stream || error == http::error::partial_message ||
                       error == asio::error::eof;
    if (early) return fail(ErrorCode::peer_lost, "{}: the server closed the connection", what);
    return fail(ErrorCode::io, "{}: {}", what, error.message());
  }

  void finish(Status end) {
    if (!handlers_.ended) return;
    answer_.end = std::move(end);
    ErrorId ignored;
    stream_.socket().close(ignored);
    // Handlers may hold what holds this.
    const HttpHandlers handlers = std::exchange(handlers_, {});
    handlers.ended(std::move(answer_));
  }

  beast::tcp_stream stream_;
  HttpCall call_;
  HttpHandlers handlers_;
  http::request<http::string_body> request_;
  http::response_parser<http::buffer_body> parser_;
  beast::flat_buffer buffer_{1 << 16};
  std::array<char, 16384> bytes_;
  HttpAnswer answer_;
  bool cancelled_ = false;
};

}  // namespace

Result<ServerAddress> ServerAddress::parse(std::string_view url) {
  const std::string_view whole = url;
  const auto bad = [&] {
    return fail(ErrorCode::invalid, "'{}' is no server's address; write http://127.0.0.1:8000",
                whole.substr(0, 200));
  };
  if (url.starts_with("https://"))
    return fail(ErrorCode::unsupported, "{}: TLS is not spoken here; give an http:// address", whole);
  if (url.starts_with("http://")) url.remove_prefix(7);
  while (url.ends_with('/')) url.remove_suffix(1);
  ServerAddress address;
  std::string_view port;
  if (url.starts_with('[')) {  // IPv6
    const std::size_t end = url.find(']');
    if (end == std::string_view::npos) return bad();
    address.host = url.substr(1, end - 1);
    port = url.substr(end + 1);
  } else {
    const std::size_t colon = std::min(url.find(':'), url.size());
    address.host = url.substr(0, colon);
    port = url.substr(colon);
  }
  if (!port.empty()) {
    if (!port.starts_with(':')) return bad();
    port.remove_prefix(1);
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || end != port.data() + port.size() || number == 0) return bad();
    address.port = port;
  }
  const bool printable = std::all_of(address.host.begin(), address.host.end(), [](unsigned char c) {
    return c > 32 && c < 127 && c != '/' && c != '@';
  });
  if (address.host.empty() || !printable) return bad();
  return address;
}

Result<Endpoints> resolve(const ServerAddress& server) {
  asio::io_context context;
  tcp::resolver resolver(context);
  ErrorId error;
  const auto found = resolver.resolve(server.host, server.port, error);
  if (error || found.empty())
    return fail(ErrorCode::not_found, "{}: there is no such host: {}", server.host, error.message());
  Endpoints endpoints;
  for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  return endpoints;
}

std::shared_ptr<HttpExchange> HttpExchange::start(asio::io_context& context, const Endpoints& endpoints,
                                                  HttpCall call, HttpHandlers handlers) {
  auto exchange = std::make_shared<Exchange>(context, std::move(call), std::move(handlers));
  exchange->start(endpoints);
  return exchange;
}

Result<std::string> http_get(const Endpoints& endpoints, const ServerAddress& server, std::string target,
                             std::string api_key, Nanos limit) {
  asio::io_context context(1);
  std::string body;
  HttpAnswer answer{.end = fail(ErrorCode::timed_out, "no answer in time")};
  HttpExchange::start(context, endpoints,
                      {.target = std::move(target),
                       .host = server.host,
                       .api_key = std::move(api_key),
                       .connect_limit = limit,
                       .silence_limit = limit},
                      {.body = [&](std::string_view bytes) { body += bytes; },
                       .ended = [&](HttpAnswer ended) { answer = std::move(ended); }});
  context.run_for(2 * limit);
  if (!answer.end) return pass(answer.end.error());
  if (answer.status != 200) return fail(ErrorCode::io, "status {}: {}", answer.status, error_message(body));
  return body;
}

}  // namespace switchyard::bench
