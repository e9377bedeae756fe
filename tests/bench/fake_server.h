// A server of scripted answers over real sockets, which also does what no proper server would.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace switchyard::bench::testing {

class FakeServer {
 public:
  struct Answer {
    std::vector<std::string> pieces;  // bytes, each sent by itself, status line and headers included
    bool stall = false;               // then nothing more, until the client goes
    bool reset = false;               // then a reset instead of a proper close
  };
  // Told the request's target and body; called on threads of the server.
  using Script = std::function<Answer(const std::string& target, const std::string& body)>;

  explicit FakeServer(Script script);
  // Ends when every client has gone.
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::uint16_t port() const { return port_; }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  void serve(int socket);

  Script script_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::vector<std::thread> threads_;
  std::thread accepter_;
};

// A whole answer with its length.
std::string whole(int status, const std::string& body, const std::string& headers = {});
// The head of a chunked stream of events, one of its chunks, its end.
std::string stream_head();
std::string chunk(const std::string& bytes);
std::string stream_end();
// An event with so many tokens.
std::string token_event(int tokens, bool last = false);
// A good stream of so many tokens, an event for each.
std::vector<std::string> good_stream(int tokens);

}  // namespace switchyard::bench::testing
