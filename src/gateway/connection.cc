#include "gateway/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <exception>
#include <utility>

#include "base/log.h"

namespace switchyard::gateway {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kReadAhead = 4096;              // bytes that the watch reads at once
constexpr std::size_t kWriteRun = 256 * 1024;         // bytes that one write timeout is for
constexpr std::size_t kSmallestBuffer = 64 * 1024;    // of the read buffer's limit
constexpr auto kDrainTime = std::chrono::seconds(2);  // for a client to stop sending after a refusal

ApiError http_error(int status, std::string message, std::string code) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  error.code = std::move(code);
  if (status >= 500) error.type = "server_error";
  return error;
}

// What a broken request deserves; status 0: nothing, the connection is gone.
ApiError error_for(const error_code& ec, const GatewayOptions& options) {
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    return http_error(
        431, fmt::format("The request's headers are larger than {} bytes.", options.max_header_bytes),
        "headers_too_large");
  }
  if (ec == http::error::body_limit) {
    return http_error(413, fmt::format("The request body is larger than {} bytes.", options.max_body_bytes),
                      "body_too_large");
  }
  if (ec == http::error::bad_version) {
    return http_error(505, "Only HTTP/1.0 and HTTP/1.1 are served.", "http_version");
  }
  if (ec == http::error::end_of_stream || ec == http::error::partial_message ||
      ec.category() != http::make_error_code(http::error::bad_method).category()) {
    return http_error(0, {}, {});
  }
  return http_error(400, fmt::format("The request is not valid HTTP: {}.", ec.message()), "invalid_http");
}

// A client whose machine is gone is noticed after about a minute, even when nothing is sent to it.
void probe_silent_peers(int socket) {
  const int idle_seconds = 30;
  const int interval_seconds = 10;
  const int probes = 3;
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof(idle_seconds));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof(interval_seconds));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

}  // namespace

// A request while it is read and answered; gives its part of the body budget back.
struct Connection::Incoming {
  explicit Incoming(BodyBudget& body_budget) : budget(&body_budget) {}
  ~Incoming() { budget->used -= counted; }
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  bool count_body(std::size_t bytes) {
    if (budget->used - counted + bytes > budget->limit) return false;
    budget->used += bytes - counted;
    counted = bytes;
    return true;
  }

  http::request_parser<http::string_body> parser;
  HttpHead head;
  TimePoint begin{};
  BodyBudget* budget;
  std::size_t counted = 0;
  bool keep_alive = false;
};

Connection::Connection(asio::ip::tcp::socket socket, const ConnectionContext& context, bool overloaded,
                       Closed closed)
    : socket_(std::move(socket)),
      context_(context),
      overloaded_(overloaded),
      closed_(std::move(closed)),
      timer_(socket_.get_executor()),
      signal_(socket_.get_executor()),
      buffer_(std::max(kSmallestBuffer, 2 * context.options->max_header_bytes)) {}

void Connection::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.set_option(asio::socket_base::keep_alive(true), ignored);
  probe_silent_peers(socket_.native_handle());
  if (context_.options->send_buffer_bytes > 0) {
    socket_.set_option(asio::socket_base::send_buffer_size(context_.options->send_buffer_bytes), ignored);
  }
  asio::co_spawn(
      socket_.get_executor(), [self = shared_from_this()] { return self->run(); },
      [self = shared_from_this()](const std::exception_ptr& failure) {
        if (failure) {
          try {
            std::rethrow_exception(failure);
          } catch (const std::exception& exception) {
            log::error("gateway: a connection failed: {}", exception.what());
          }
        }
        if (self->exchange_ && self->exchange_->activity()) self->exchange_->activity()->abandon();
        self->exchange_.reset();
        self->clear_deadline();
        self->timer_.cancel();
        self->close_now();
        if (self->closed_) std::exchange(self->closed_, {})(self.get());
      });
}

asio::awaitable<void> Connection::run() {
  auto step = Step::next_request;
  while (step == Step::next_request && !closing_) step = co_await serve();
}

asio::awaitable<Connection::Step> Connection::serve() {
  idle_ = true;
  const bool arrived = co_await wait_for_request();
  if (!arrived) co_return Step::close;
  idle_ = false;
  Incoming incoming(*context_.body_budget);
  auto step = co_await read_head(incoming);
  if (step == Step::proceed) step = co_await read_body(incoming);
  if (step == Step::proceed) step = co_await answer(incoming);
  co_return step;
}

// Until there are bytes in the buffer. The watch of the request before may still be reading into it.
asio::awaitable<bool> Connection::wait_for_request() {
  set_deadline(context_.options->idle_timeout);
  if (buffer_.size() == 0) watch();
  if (buffer_.size() > 0 && watching_) {
    error_code ignored;
    socket_.cancel(ignored);
  }
  while (watching_) co_await wait_for_change(TimePoint::max());
  clear_deadline();
  co_return buffer_.size() > 0 && socket_.is_open();
}

asio::awaitable<Connection::Step> Connection::read_head(Incoming& incoming) {
  const GatewayOptions& options = *context_.options;
  auto& parser = incoming.parser;
  parser.header_limit(static_cast<std::uint32_t>(options.max_header_bytes));
  parser.body_limit(options.max_body_bytes);
  set_deadline(options.header_timeout);
  const auto [ec, bytes] = co_await http::async_read_header(socket_, buffer_, parser, kAwait);
  clear_deadline();
  incoming.begin = monotonic_now();
  const auto& message = parser.get();
  HttpHead& head = incoming.head;
  head.method = std::string(message.method_string());
  head.path = path_of(std::string_view(message.target().data(), message.target().size()));
  head.http_1_0 = message.version() < 11;
  head.has_host = message.find(http::field::host) != message.end();
  head.host = std::string(message[http::field::host]);
  head.origin = std::string(message[http::field::origin]);
  head.authorization = std::string(message[http::field::authorization]);
  head.content_encoding = std::string(message[http::field::content_encoding]);
  std::optional<ApiError> error;
  if (ec) {
    error = error_for(ec, options);
  } else if (overloaded_) {
    error = http_error(503, "Too many connections are open; try again.", "too_many_connections");
    error->retry_after = 1;
  }
  if (error) {
    const auto step = co_await refuse(std::move(*error), incoming);
    co_return step;
  }
  incoming.keep_alive = message.keep_alive();
  auto refusal = context_.handler->refuse(head);
  if (!refusal) co_return Step::proceed;
  const bool body_unread = !parser.is_done();
  if (body_unread) incoming.keep_alive = false;
  const auto step = co_await respond(std::move(*refusal), incoming);
  if (body_unread) co_await drain();
  co_return step;
}

asio::awaitable<Connection::Step> Connection::read_body(Incoming& incoming) {
  auto& parser = incoming.parser;
  if (parser.is_done()) co_return Step::proceed;
  const auto& message = parser.get();
  const auto expect = message[http::field::expect];
  if (!incoming.head.http_1_0 && boost::beast::iequals(expect, "100-continue")) {
    const bool written = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
    if (!written) co_return Step::close;
  }
  set_deadline(context_.options->body_timeout);
  while (!parser.is_done()) {
    const auto [ec, bytes] = co_await http::async_read_some(socket_, buffer_, parser, kAwait);
    std::optional<ApiError> error;
    if (ec) {
      error = error_for(ec, *context_.options);
    } else if (!incoming.count_body(message.body().size())) {
      error = http_error(503, "Too many request bodies are being read; try again.", "overloaded");
      error->retry_after = 1;
    }
    if (error) {
      const auto step = co_await refuse(std::move(*error), incoming);
      co_return step;
    }
  }
  clear_deadline();
  co_return Step::proceed;
}

asio::awaitable<Connection::Step> Connection::answer(Incoming& incoming) {
  BufferedExchange::Form form;
  form.http_1_0 = incoming.head.http_1_0;
  form.keep_alive = incoming.keep_alive && !closing_;
  form.output_limit = context_.options->max_output_bytes;
  auto exchange = std::make_shared<BufferedExchange>(form, [this] { notify(); });
  exchange_ = exchange;
  try {
    HttpRequest request{incoming.head, std::move(incoming.parser.get().body())};
    context_.handler->handle(std::move(request), exchange);
  } catch (const std::exception& exception) {
    log::error("gateway: {} {} failed: {}", incoming.head.method, incoming.head.path, exception.what());
    exchange->respond(
        error_response(http_error(500, "The server failed to handle the request.", "internal")));
  }
  const bool finished = co_await pump(*exchange, incoming);
  exchange_.reset();
  if (!finished) {
    if (exchange->activity()) exchange->activity()->abandon();
    co_return Step::close;
  }
  if (auto response = exchange->take_response()) {
    const auto step = co_await respond(std::move(*response), incoming);
    co_return step;
  }
  context_.metrics->count_request(context_.handler->route_name(incoming.head.path), 200,
                                  to_seconds(monotonic_now() - incoming.begin));
  const bool keep = form.keep_alive && !form.http_1_0 && !exchange->broken();
  co_return keep ? Step::next_request : Step::close;
}

// Until the answer is there or, if it is a stream, written. False: the client is gone.
asio::awaitable<bool> Connection::pump(BufferedExchange& exchange, Incoming& incoming) {
  TimePoint deadline = incoming.begin + context_.options->request_timeout;
  bool overdue = false;
  for (;;) {
    if (!exchange.ready()) watch();
    // A client that closed its side still gets an answer that costs no generation.
    const auto left = [&] { return peer_gone_ && exchange.activity() != nullptr; };
    while (!exchange.ready() && !left() && monotonic_now() < deadline) co_await wait_for_change(deadline);
    if (left() || exchange.dropped()) {
      auto& metrics = *context_.metrics;
      (exchange.dropped() ? metrics.slow_clients_dropped : metrics.client_disconnects).Increment();
      co_return false;
    }
    if (!exchange.streaming() && exchange.ready()) co_return true;
    const std::string output = exchange.take_output();
    if (!output.empty()) {
      const bool written = co_await write(output);
      if (!written) {
        const bool slow = exchange.dropped() || timed_out_;
        auto& metrics = *context_.metrics;
        (slow ? metrics.slow_clients_dropped : metrics.client_disconnects).Increment();
        co_return false;
      }
      exchange.written();
    }
    if (exchange.ended()) co_return true;
    if (monotonic_now() >= deadline) {
      if (overdue || !exchange.activity()) co_return false;
      overdue = true;
      deadline += context_.options->write_timeout;
      exchange.activity()->fail(http_error(504, "The request took too long.", "timeout"));
    }
  }
}

asio::awaitable<Connection::Step> Connection::respond(HttpResponse response, const Incoming& incoming) {
  const bool keep_alive = incoming.keep_alive && !closing_;
  BodyFraming framing;
  framing.length = response.body.size();
  std::string bytes = response_head(response.status, response.content_type, response.headers, framing,
                                    incoming.head.http_1_0, keep_alive);
  if (incoming.head.method != "HEAD" && response.status != 204) bytes += response.body;
  context_.metrics->count_request(context_.handler->route_name(incoming.head.path), response.status,
                                  to_seconds(monotonic_now() - incoming.begin));
  const bool written = co_await write(bytes);
  co_return written&& keep_alive ? Step::next_request : Step::close;
}

// Answers what could not be read as a request, and closes.
asio::awaitable<Connection::Step> Connection::refuse(ApiError error, Incoming& incoming) {
  clear_deadline();
  if (error.status == 0 || !socket_.is_open()) co_return Step::close;
  incoming.keep_alive = false;
  co_await respond(error_response(error), incoming);
  co_await drain();
  co_return Step::close;
}

asio::awaitable<bool> Connection::write(std::string_view bytes) {
  bool good = socket_.is_open();
  writing_ = true;
  while (good && !bytes.empty()) {
    const auto run = bytes.substr(0, kWriteRun);
    set_deadline(context_.options->write_timeout);
    const auto [ec, count] =
        co_await asio::async_write(socket_, asio::buffer(run.data(), run.size()), kAwait);
    good = !ec;
    bytes.remove_prefix(run.size());
  }
  writing_ = false;
  clear_deadline();
  co_return good;
}

// Closing with unread bytes would reset the connection and take the answer from the client: reads them first.
asio::awaitable<void> Connection::drain() {
  error_code ignored;
  socket_.shutdown(asio::socket_base::shutdown_send, ignored);
  set_deadline(kDrainTime);
  buffer_.clear();
  for (bool more = socket_.is_open(); more;) {
    const auto [ec, count] = co_await socket_.async_read_some(buffer_.prepare(kSmallestBuffer), kAwait);
    more = !ec;
  }
  clear_deadline();
}

// Reads ahead while a request is answered: what comes belongs to the next request, the end means that the
// client is gone. A client that sends ever more is not read any further than one request's headers.
void Connection::watch() {
  if (watching_ || peer_gone_ || buffer_.size() >= context_.options->max_header_bytes) return;
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(kReadAhead),
                          [self = shared_from_this()](const error_code& ec, std::size_t count) {
                            self->watching_ = false;
                            self->buffer_.commit(count);
                            if (ec && ec != asio::error::operation_aborted) {
                              self->peer_gone_ = true;
                              if (self->writing_) self->close_now();
                            }
                            self->notify();
                          });
}

asio::awaitable<void> Connection::wait_for_change(TimePoint deadline) {
  signal_.expires_at(deadline);
  const auto [ec] = co_await signal_.async_wait(kAwait);
  static_cast<void>(ec);
}

void Connection::notify() {
  if (writing_ && exchange_ && exchange_->dropped()) close_now();
  signal_.cancel();
}

void Connection::close_when_idle() {
  closing_ = true;
  if (idle_) close_now();
}

void Connection::fail(const ApiError& error) {
  closing_ = true;
  if (exchange_ && exchange_->activity()) {
    exchange_->activity()->fail(error);
  } else if (!writing_) {
    close_now();
  }
}

void Connection::close_now() {
  error_code ignored;
  socket_.close(ignored);
  signal_.cancel();
}

// One timer for all deadlines of the connection: it is moved only when a deadline is earlier than it is due,
// and otherwise looks again when it is due.
void Connection::set_deadline(Nanos timeout) {
  deadline_ = monotonic_now() + timeout;
  if (!timer_armed_ || deadline_ < timer_due_) arm_timer();
}

void Connection::clear_deadline() { deadline_ = TimePoint::max(); }

void Connection::arm_timer() {
  timer_armed_ = true;
  timer_due_ = deadline_;
  timer_.expires_at(deadline_);
  timer_.async_wait([self = shared_from_this()](const error_code& ec) {
    if (ec) return;
    self->timer_armed_ = false;
    if (self->deadline_ == TimePoint::max()) return;
    if (monotonic_now() < self->deadline_) return self->arm_timer();
    self->timed_out_ = true;
    self->context_.metrics->connection_timeouts.Increment();
    self->close_now();
  });
}

}  // namespace switchyard::gateway
