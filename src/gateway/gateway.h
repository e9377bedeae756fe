// The HTTP front of Switchyard: the OpenAI API over a Generator.
//
// One I/O thread serves all clients; a second one tokenises long prompts and asks the pool for its state.
// Owned by the program; the generator must outlive it. Idle cost: none, but memory per open connection.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gateway/admin.h"
#include "gateway/openai_request.h"
#include "gateway/served_text.h"
#include "pool/generator.h"
#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::gateway {

struct GatewayOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;             // 0: any that is free
  std::vector<std::string> api_keys;  // empty: none is asked for
  // Empty: admin calls are open on loopback where there are no api_keys either, else closed.
  std::vector<std::string> admin_keys;

  std::size_t max_connections = 1024;
  std::size_t max_header_bytes = 16 * 1024;
  std::size_t max_body_bytes = 8 * 1024 * 1024;
  std::size_t max_total_body_bytes = 256 * 1024 * 1024;  // of requests that are being read, together
  std::size_t max_output_bytes = 256 * 1024;             // of a stream, waiting for its client
  std::size_t max_queued_tokens = 4096;                  // of a choice, waiting for max_output_bytes
  int send_buffer_bytes = 0;                             // of the sockets; 0: the system's choice

  Nanos header_timeout = std::chrono::seconds(10);
  Nanos body_timeout = std::chrono::seconds(60);
  Nanos idle_timeout = std::chrono::seconds(75);
  Nanos write_timeout = std::chrono::seconds(30);     // for one buffer of output
  Nanos request_timeout = std::chrono::seconds(600);  // from a request's headers to the end of its answer

  RequestLimits limits;
};

class Gateway {
 public:
  // Listens when it returns; models may come and go. One whose tokenizer cannot be used is a failed model.
  // Errors: exhausted (port in use), invalid (host), denied, io.
  static Result<std::unique_ptr<Gateway>> start(GatewayOptions options, pool::Generator& generator);
  // With admin calls.
  static Result<std::unique_ptr<Gateway>> start(GatewayOptions options, pool::Generator& generator,
                                                GatewayControls controls);
  // With another source of tokenizers and templates than the models' images.
  static Result<std::unique_ptr<Gateway>> start(GatewayOptions options, pool::Generator& generator,
                                                GatewayControls controls, const ServedTextFactory& text);
  virtual ~Gateway() = default;  // stops at once

  virtual std::uint16_t port() const = 0;
  // Accepts nothing any more, lets requests under way end until the deadline, ends the rest with an error.
  // Returns when all connections are closed. Not from the gateway's own threads; a second call does nothing.
  virtual void stop(TimePoint deadline) = 0;
};

}  // namespace switchyard::gateway
