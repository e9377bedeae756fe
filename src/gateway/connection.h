// One client connection: reads requests one after the other, hands them to the handler, writes the answers.
//
// Owned by its server; io thread only. A request is read under header and body timeouts, its body counted
// against the server's budget; while it is answered the socket is watched, so that a client that goes away is
// noticed at once. At rest a connection costs its buffers and one timer that is not due.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/buffered_exchange.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"
#include "gateway/metrics.h"
#include "switchyard/time.h"

namespace switchyard::gateway {

// Bytes of request bodies that are held at the same time, over all connections.
struct BodyBudget {
  std::size_t used = 0;
  std::size_t limit = 0;
};

struct ConnectionContext {
  const GatewayOptions* options = nullptr;
  RequestHandler* handler = nullptr;
  Metrics* metrics = nullptr;
  BodyBudget* body_budget = nullptr;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Closed = std::function<void(Connection*)>;

  // `overloaded`: answer one request with 503 and close.
  Connection(boost::asio::ip::tcp::socket socket, const ConnectionContext& context, bool overloaded,
             Closed closed);

  void start();
  // Closes now if nothing is under way, else after the answer.
  void close_when_idle();
  // Ends the request under way with this error.
  void fail(const ApiError& error);
  void close_now();

 private:
  struct Incoming;
  // What comes after a part of a request.
  enum class Step { proceed, next_request, close };

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<Step> serve();
  boost::asio::awaitable<bool> wait_for_request();
  boost::asio::awaitable<Step> read_head(Incoming& incoming);
  boost::asio::awaitable<Step> read_body(Incoming& incoming);
  boost::asio::awaitable<Step> answer(Incoming& incoming);
  boost::asio::awaitable<bool> pump(BufferedExchange& exchange, Incoming& incoming);
  boost::asio::awaitable<Step> respond(HttpResponse response, const Incoming& incoming);
  boost::asio::awaitable<Step> refuse(ApiError error, Incoming& incoming);
  boost::asio::awaitable<bool> write(std::string_view bytes);
  boost::asio::awaitable<void> drain();
  boost::asio::awaitable<void> wait_for_change(TimePoint deadline);

  void watch();
  void notify();
  void set_deadline(Nanos timeout);
  void clear_deadline();
  void arm_timer();

  boost::asio::ip::tcp::socket socket_;
  ConnectionContext context_;
  bool overloaded_;
  Closed closed_;
  boost::asio::steady_timer timer_;   // the deadline of what the socket is doing
  boost::asio::steady_timer signal_;  // wakes the coroutine; never due by itself but for a request's deadline
  boost::beast::flat_buffer buffer_;
  std::shared_ptr<BufferedExchange> exchange_;
  TimePoint deadline_ = TimePoint::max();
  TimePoint timer_due_ = TimePoint::max();
  bool timer_armed_ = false;
  bool watching_ = false;
  bool writing_ = false;
  bool idle_ = true;
  bool closing_ = false;
  bool peer_gone_ = false;
  bool timed_out_ = false;
};

}  // namespace switchyard::gateway
