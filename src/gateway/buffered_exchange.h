// The connection's half of an exchange: what is to be written, kept until the connection writes it.
//
// Owned by the connection. Io thread only; knows no socket. Senders that obey writable() keep the buffer
// below its limit plus one chunk.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "gateway/exchange.h"

namespace switchyard::gateway {

class BufferedExchange final : public Exchange {
 public:
  struct Form {
    bool http_1_0 = false;  // no chunks: a stream ends with the connection
    bool keep_alive = true;
    std::size_t output_limit = 256 * 1024;
  };
  // `changed` is called after each change that the connection must act on.
  BufferedExchange(Form form, std::function<void()> changed) : form_(form), changed_(std::move(changed)) {}

  void attach(std::shared_ptr<Activity> activity) override;
  void respond(HttpResponse response) override;
  void begin_stream(const HttpHeaders& headers) override;
  void send(std::string_view bytes) override;
  bool writable() const override { return output_.size() + in_flight_ < form_.output_limit; }
  void end_stream(bool broken) override;
  void drop_slow_client() override;

  // For the connection.
  std::optional<HttpResponse> take_response() { return std::exchange(response_, std::nullopt); }
  // The bytes that wait; they count as buffered until written() is called.
  std::string take_output();
  void written();
  bool ready() const { return response_ || !output_.empty() || ended_ || dropped_; }
  bool streaming() const { return streaming_; }
  bool ended() const { return ended_ && output_.empty(); }
  bool broken() const { return broken_; }
  bool dropped() const { return dropped_; }
  const std::shared_ptr<Activity>& activity() const { return activity_; }

 private:
  Form form_;
  std::function<void()> changed_;
  std::shared_ptr<Activity> activity_;
  std::optional<HttpResponse> response_;
  std::string output_;
  std::size_t in_flight_ = 0;
  bool streaming_ = false;
  bool ended_ = false;
  bool broken_ = false;
  bool dropped_ = false;
};

}  // namespace switchyard::gateway
