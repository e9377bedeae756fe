// The seam between a connection and what answers its requests: one Exchange per request.
//
// A connection owns the exchange, the exchange owns the Activity that works for it (a generation), and the
// activity knows the exchange only weakly: when the connection goes, everything goes. Io thread only.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "gateway/api_error.h"
#include "gateway/http_message.h"

namespace switchyard::gateway {

// Work under way for a request.
class Activity {
 public:
  virtual ~Activity() = default;
  // The client is gone, or was dropped: nothing will be sent any more.
  virtual void abandon() = 0;
  // It takes too long, or the server stops: answer with this error and end.
  virtual void fail(const ApiError& error) = 0;
  // The stream has room again.
  virtual void resume() = 0;
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  // Kept alive until the exchange ends; told about the client.
  virtual void attach(std::shared_ptr<Activity> activity) = 0;

  // The whole response. Either this once, or begin_stream once, send, end_stream once.
  virtual void respond(HttpResponse response) = 0;
  // 200 with an event stream.
  virtual void begin_stream(const HttpHeaders& headers) = 0;
  virtual void send(std::string_view bytes) = 0;
  // Less than the output buffer's limit waits to be written. Senders stop when this is false, until resume().
  virtual bool writable() const = 0;
  // `broken`: the stream ended in an error; the connection is closed after it.
  virtual void end_stream(bool broken) = 0;
  // The client does not read: close without another word.
  virtual void drop_slow_client() = 0;
};

class RequestHandler {
 public:
  virtual ~RequestHandler() = default;
  // After the headers, before the body: a response refuses the request.
  virtual std::optional<HttpResponse> refuse(const HttpHead& head) = 0;
  // Answers now or later, through the exchange.
  virtual void handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) = 0;
  // The route's name in metrics; one of a fixed few.
  virtual std::string_view route_name(std::string_view path) const = 0;
};

}  // namespace switchyard::gateway
