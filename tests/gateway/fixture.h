// A gateway over a fake generator, on a port of its own.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "gateway/fake_catalogue.h"
#include "gateway/fake_generator.h"
#include "gateway/gateway.h"
#include "gateway/http_client.h"
#include "gateway/toy_text.h"

namespace switchyard::gateway::testing {

class GatewayTest : public ::testing::Test {
 protected:
  // Call first; options and plan as the test needs them.
  void start(GatewayOptions options = {}, FakeGenerator::Planner planner = {}) {
    generator = std::make_unique<FakeGenerator>(std::move(planner));
    catalogue = std::make_unique<FakeCatalogue>(*generator);
    GatewayControls controls;
    if (with_admin) controls.catalogue = catalogue.get();
    controls.reloader = reloader.get();
    controls.defaults = defaults;
    auto started = Gateway::start(std::move(options), *generator, controls, text_factory);
    ASSERT_TRUE(started) << started.error().message;
    gateway = std::move(*started);
    port = gateway->port();
  }

  ClientResponse chat(std::string_view content, std::string_view more = {}) {
    return http(port, "POST", "/v1/chat/completions", chat_body(content, more));
  }
  ClientResponse complete(std::string_view prompt, std::string_view more = {}) {
    return http(port, "POST", "/v1/completions", completion_body(prompt, more));
  }

  // `more`: further fields, ", \"n\": 2".
  static std::string chat_body(std::string_view content, std::string_view more = {}) {
    return R"({"model": "toy", "messages": [{"role": "user", "content": )" + nlohmann::json(content).dump() +
           "}]" + std::string(more) + "}";
  }
  static std::string completion_body(std::string_view prompt, std::string_view more = {}) {
    return R"({"model": "toy", "prompt": )" + nlohmann::json(prompt).dump() + R"(, "max_tokens": 500)" +
           std::string(more) + "}";
  }

  // The value of a metric without labels, or of one with exactly these.
  double metric(const std::string& name) {
    const std::string text = http(port, "GET", "/metrics").body;
    const auto at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size() + 2));
  }
  // Asks again until the metric has the value; false after twenty seconds.
  bool wait_for_metric(const std::string& name, double value) {
    const auto deadline = monotonic_now() + std::chrono::seconds(20);
    while (monotonic_now() < deadline) {
      if (metric(name) == value) return true;
    }
    return false;
  }

  // To be set before start().
  ServedTextFactory text_factory = toy_text;
  bool with_admin = false;
  pool::ModelSettings defaults;
  std::unique_ptr<pool::Reloader> reloader;

  std::unique_ptr<FakeGenerator> generator;
  std::unique_ptr<FakeCatalogue> catalogue;
  std::unique_ptr<Gateway> gateway;
  std::uint16_t port = 0;
};

}  // namespace switchyard::gateway::testing
