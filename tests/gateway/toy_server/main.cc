// A gateway over a fake generator: gateway_toy_server [PORT [API_KEY]]. Ends when standard input does.
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "gateway/fake_generator.h"
#include "gateway/gateway.h"
#include "gateway/toy_text.h"

int main(int argc, char** argv) {
  using namespace switchyard;
  log::start("toy");
  gateway::testing::FakeGenerator generator;
  gateway::GatewayOptions options;
  if (argc > 1) options.port = static_cast<std::uint16_t>(std::atoi(argv[1]));
  if (argc > 2) options.api_keys = {argv[2]};
  auto gateway = gateway::Gateway::start(options, generator, {}, gateway::testing::toy_text);
  if (!gateway) {
    std::fprintf(stderr, "%s\n", gateway.error().message.c_str());
    return 1;
  }
  std::printf("%d\n", (*gateway)->port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  (*gateway)->stop(monotonic_now() + std::chrono::seconds(5));
  return 0;
}
