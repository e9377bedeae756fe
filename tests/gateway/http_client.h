// A small blocking HTTP client over a real socket, for tests; it can also send what no proper client would.
//
// Every wait ends after twenty seconds.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::gateway::testing {

struct ClientResponse {
  int status = 0;                              // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool complete = false;  // the body ended as its framing says

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
  // The payloads of the body's server-sent events.
  std::vector<std::string> events() const;
};

class HttpClient {
 public:
  // `receive_buffer`: of the socket, in bytes; 0: the system's.
  explicit HttpClient(std::uint16_t port, int receive_buffer = 0);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  bool connected() const { return socket_ >= 0; }
  // False: the peer closed the connection before everything was sent.
  bool send(std::string_view bytes);
  void request(std::string_view method, std::string_view path, std::string_view body = {},
               std::string_view extra_headers = {});
  // `body_expected`: false after HEAD.
  ClientResponse read_response(bool body_expected = true);
  // The status line and headers alone.
  ClientResponse read_head();
  // Bytes of a chunked body until `text` is in them.
  bool read_until(std::string_view text, std::string& bytes);
  ClientResponse roundtrip(std::string_view method, std::string_view path, std::string_view body = {},
                           std::string_view extra_headers = {});
  // True: the peer closed, cleanly or not.
  bool wait_for_close();
  void finish_sending();
  void close(bool reset = false);

 private:
  bool fill();
  std::optional<std::string> line();

  int socket_ = -1;
  std::string received_;
};

ClientResponse http(std::uint16_t port, std::string_view method, std::string_view path,
                    std::string_view body = {}, std::string_view extra_headers = {});

}  // namespace switchyard::gateway::testing
