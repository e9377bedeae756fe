#include "pool/config.h"

#include <gtest/gtest.h>

namespace switchyard::pool {
namespace {

TEST(Config, ReadsEverything) {
  const auto config = parse_config(R"(
model: models/a.gguf
served_name: a
instances: {prefill: 2, decode: 3}
fabric: net
threads: 4
kv_memory: 512MiB
max_queue: 10
control_tls: true
listen: {host: 0.0.0.0, port: 9000}
api_keys: [one, two]
)",
                                   "/etc");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->pool.model, "/etc/models/a.gguf");
  EXPECT_EQ(config->pool.served_name, "a");
  EXPECT_EQ(config->pool.prefill, 2u);
  EXPECT_EQ(config->pool.decode, 3u);
  EXPECT_EQ(config->pool.fabric, "net");
  EXPECT_EQ(config->pool.threads, 4u);
  EXPECT_EQ(config->pool.kv_bytes, 512u << 20);
  EXPECT_EQ(config->pool.max_queue, 10u);
  EXPECT_TRUE(config->pool.control_tls);
  EXPECT_EQ(config->host, "0.0.0.0");
  EXPECT_EQ(config->port, 9000);
  EXPECT_EQ(config->api_keys, (std::vector<std::string>{"one", "two"}));
}

TEST(Config, AnEmptyFileIsTheDefault) { EXPECT_EQ(parse_config("")->port, 8000); }

TEST(Config, ErrorsNameTheLineAndTheKey) {
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"modle: a", "line 1: 'modle' is not known"},
           {"control_tls: perhaps", "line 1: control_tls: must be true or false"},
           {"model: a\nthreads: many", "line 2: threads: 'many' is not a number"},
           {"listen: {port: 70000}", "line 1: listen: line 1: port"},
           {"kv_memory: lots", "line 1: kv_memory: 'lots' is no size"},
           {"instances: {prefill: 1}", "each needs the other"},
           {"instances: {}", "no instances"},
           {"api_keys: secret", "must be a list"},
           {"[1, 2]", "must be a mapping"},
           {"model: [", "line"},
           {"model: &a [*a]", "line"},
       }) {
    const auto config = parse_config(text);
    ASSERT_FALSE(config) << text;
    EXPECT_NE(config.error().message.find(expected), std::string::npos) << config.error().message;
  }
}

TEST(Config, Sizes) {
  EXPECT_EQ(*parse_bytes("1024"), 1024u);
  EXPECT_EQ(*parse_bytes("1.5 GiB"), 3u << 29);
  EXPECT_EQ(*parse_bytes("2GB"), 2000000000u);
  for (const char* bad : {"", "GiB", "-1", "1e5", "5 parsecs", "1e30GiB", "99999999999GiB", "nan"}) {
    EXPECT_FALSE(parse_bytes(bad)) << bad;
  }
}

}  // namespace
}  // namespace switchyard::pool
