#include "gateway/server.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>
#include <vector>

#include "base/log.h"

namespace switchyard::gateway {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
// Connections beyond the limit that are told so; those beyond these are closed at once.
constexpr std::size_t kOverloadedConnections = 64;
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

tl::unexpected<Error> listen_error(const GatewayOptions& options, const error_code& ec) {
  const std::string where = fmt::format("{}:{}", options.host, options.port);
  if (ec == asio::error::address_in_use) {
    return fail(
        ErrorCode::exhausted,
        "cannot listen on {}: another program listens on this port; stop it or choose another port (0 takes "
        "any that is free)",
        where);
  }
  if (ec == asio::error::access_denied) {
    return fail(ErrorCode::denied,
                "cannot listen on {}: not allowed; ports below 1024 need privileges, choose another", where);
  }
  if (ec == boost::system::errc::address_not_available ||
      ec == boost::system::errc::address_family_not_supported) {
    return fail(
        ErrorCode::invalid,
        "cannot listen on {}: this machine does not have the address; use 127.0.0.1 for local clients or "
        "0.0.0.0 for all",
        where);
  }
  return fail(ErrorCode::io, "cannot listen on {}: {}", where, ec.message());
}

}  // namespace

Server::Server(asio::io_context& io, const ConnectionContext& context)
    : io_(io), context_(context), acceptor_(io), pause_(io) {
  body_budget_.limit = std::max(context.options->max_total_body_bytes, context.options->max_body_bytes);
  context_.body_budget = &body_budget_;
}

Status Server::listen() {
  const GatewayOptions& options = *context_.options;
  error_code ec;
  auto address = asio::ip::make_address(options.host, ec);
  if (ec) {
    asio::ip::tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options.host, "", ec);
    if (ec || found.empty()) {
      return fail(ErrorCode::invalid,
                  "cannot listen on '{}': {}; give an IP address or a name that resolves to one",
                  options.host, ec.message());
    }
    address = found.begin()->endpoint().address();
  }
  const asio::ip::tcp::endpoint endpoint(address, options.port);
  acceptor_->open(endpoint.protocol(), ec);
  if (!ec) acceptor_->set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) acceptor_->bind(endpoint, ec);
  if (!ec) acceptor_->listen(asio::socket_base::max_listen_connections, ec);
  if (ec) return listen_error(options, ec);
  port_ = acceptor_->local_endpoint(ec).port();
  if (ec) return listen_error(options, ec);
  if (!address.is_loopback() && options.api_keys.empty()) {
    log::warn("gateway: {} can be reached from other machines and no API key is asked for; set api_keys",
              options.host);
  }
  return {};
}

void Server::accept() { asio::co_spawn(io_, accept_loop(), asio::detached); }

asio::awaitable<void> Server::accept_loop() {
  while (acceptor_->is_open()) {
    auto [ec, socket] = co_await acceptor_->async_accept(kAwait);
    if (!acceptor_->is_open()) co_return;
    if (ec) {
      // Out of descriptors or memory, most likely: others must end first.
      log::warn("gateway: cannot accept a connection: {}", ec.message());
      pause_->expires_after(kAcceptPause);
      const auto [pause_error] = co_await pause_->async_wait(kAwait);
      static_cast<void>(pause_error);
      continue;
    }
    add(std::move(socket));
  }
}

void Server::add(asio::ip::tcp::socket socket) {
  const std::size_t limit = context_.options->max_connections;
  const bool overloaded = connections_.size() >= limit;
  context_.metrics->connections_accepted.Increment();
  if (overloaded) context_.metrics->connections_refused.Increment();
  if (connections_.size() >= limit + kOverloadedConnections) return;  // the socket closes
  auto connection = std::make_shared<Connection>(std::move(socket), context_, overloaded,
                                                 [this](Connection* closed) { remove(closed); });
  connections_.emplace(connection.get(), connection);
  context_.metrics->connections.Set(static_cast<double>(connections_.size()));
  {
    std::lock_guard lock(mutex_);
    open_ = connections_.size();
  }
  connection->start();
}

void Server::remove(Connection* connection) {
  connections_.erase(connection);
  context_.metrics->connections.Set(static_cast<double>(connections_.size()));
  {
    std::lock_guard lock(mutex_);
    open_ = connections_.size();
  }
  changed_.notify_all();
}

void Server::stop_accepting() {
  error_code ignored;
  acceptor_->close(ignored);
  pause_->cancel();
  for (const auto& [key, connection] : connections_) connection->close_when_idle();
}

void Server::fail_all(const ApiError& error) {
  for (const auto& [key, connection] : connections_) connection->fail(error);
}

void Server::close_all() {
  for (const auto& [key, connection] : connections_) connection->close_now();
}

void Server::dispose() {
  connections_.clear();
  acceptor_.reset();
  pause_.reset();
}

bool Server::wait_until_empty(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return open_ == 0; });
}

}  // namespace switchyard::gateway
