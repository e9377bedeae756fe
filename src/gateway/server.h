// Listens, and keeps the connections.
//
// Owned by the gateway, used on the io thread but for start() (before the thread runs) and
// wait_until_empty().
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "gateway/connection.h"
#include "switchyard/result.h"

namespace switchyard::gateway {

class Server {
 public:
  Server(boost::asio::io_context& io, const ConnectionContext& context);

  // Binds and listens. Errors: invalid (host), denied, exhausted (port in use), io.
  Status listen();
  std::uint16_t port() const { return port_; }
  void accept();

  void stop_accepting();  // and closes idle connections
  void fail_all(const ApiError& error);
  void close_all();
  // After the io thread has ended, before its context is destroyed.
  void dispose();
  // Any thread. False: connections are left at the deadline.
  bool wait_until_empty(TimePoint deadline);

 private:
  boost::asio::awaitable<void> accept_loop();
  void add(boost::asio::ip::tcp::socket socket);
  void remove(Connection* connection);

  boost::asio::io_context& io_;
  ConnectionContext context_;
  BodyBudget body_budget_;
  std::optional<boost::asio::ip::tcp::acceptor> acceptor_;
  std::optional<boost::asio::steady_timer> pause_;
  std::uint16_t port_ = 0;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t open_ = 0;  // of connections_, for other threads
};

}  // namespace switchyard::gateway
