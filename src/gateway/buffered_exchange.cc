#include "gateway/buffered_exchange.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace switchyard::gateway {

void BufferedExchange::attach(std::shared_ptr<Activity> activity) {
  activity_ = std::move(activity);
  changed_();
}

void BufferedExchange::respond(HttpResponse response) {
  response_ = std::move(response);
  changed_();
}

void BufferedExchange::begin_stream(const HttpHeaders& headers) {
  streaming_ = true;
  HttpHeaders all = headers;
  all.emplace_back("Cache-Control", "no-cache");
  all.emplace_back("X-Accel-Buffering", "no");  // proxies are to pass events on at once
  BodyFraming framing;
  framing.chunked = !form_.http_1_0;
  output_ += response_head(200, "text/event-stream; charset=utf-8", all, framing, form_.http_1_0,
                           form_.keep_alive && !form_.http_1_0);
}

void BufferedExchange::send(std::string_view bytes) {
  if (ended_ || dropped_ || bytes.empty()) return;
  if (form_.http_1_0) {
    output_ += bytes;
  } else {
    fmt::format_to(std::back_inserter(output_), "{:x}\r\n", bytes.size());
    output_ += bytes;
    output_ += "\r\n";
  }
  changed_();
}

void BufferedExchange::end_stream(bool broken) {
  if (!form_.http_1_0) output_ += "0\r\n\r\n";
  ended_ = true;
  broken_ = broken;
  changed_();
}

void BufferedExchange::drop_slow_client() {
  dropped_ = true;
  output_.clear();
  changed_();
}

std::string BufferedExchange::take_output() {
  in_flight_ = output_.size();
  return std::exchange(output_, {});
}

void BufferedExchange::written() {
  in_flight_ = 0;
  if (!ended_ && activity_ && writable()) activity_->resume();
}

}  // namespace switchyard::gateway
