#include "pool/config.h"

#include <gtest/gtest.h>

#include <chrono>

namespace switchyard::pool {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Config, ReadsEverything) {
  const auto config = parse_config(R"(
models:
  - {name: a, path: models/a.gguf, ttft: 2s, tbt: 50ms, weight: 2.5, pinned: true, context: 4096}
  - path: /srv/b.gguf
    max_waiting: 7
    rate: {per_second: 0.5, burst: 3}
defaults: {ttft: 5s, tbt: 80ms, max_waiting: 100, rate: {per_second: 4}}
policy: quota
instances: {prefill: 2, decode: 3}
fabric: net
threads: 4
berths: 3
berth_memory: 2GiB
kv_memory: 512MiB
host_kv_memory: 4GiB
model_cache: 8GiB
admission: {max_waiting: 50, shed_overload: true, attainment: 0.8, key_rate: {per_second: 2, burst: 5}}
max_queue: 10
control_tls: true
trace: trace.jsonl
listen: {host: 0.0.0.0, port: 9000}
api_keys: [one, two]
admin_keys: [root]
watch: true
)",
                                   "/etc");
  ASSERT_TRUE(config) << config.error().message;
  const PoolConfig& pool = config->pool;
  ASSERT_EQ(pool.models.size(), 2u);
  const ModelSettings& a = pool.models[0];
  EXPECT_EQ(a.id, "a");
  EXPECT_EQ(a.path, "/etc/models/a.gguf");
  EXPECT_EQ(a.targets, (schedule::Targets{seconds(2), milliseconds(50)}));
  EXPECT_EQ(a.weight, 2.5);
  EXPECT_TRUE(a.pinned);
  EXPECT_EQ(a.context, 4096u);
  EXPECT_EQ(a.max_waiting, 100u);
  EXPECT_EQ(a.rate, (schedule::RateLimit{4, 4}));
  const ModelSettings& b = pool.models[1];
  EXPECT_EQ(b.id, "b");
  EXPECT_EQ(b.path, "/srv/b.gguf");
  EXPECT_EQ(b.targets, (schedule::Targets{seconds(5), milliseconds(80)}));
  EXPECT_EQ(b.weight, 1);
  EXPECT_FALSE(b.pinned);
  EXPECT_EQ(b.max_waiting, 7u);
  EXPECT_EQ(b.rate, (schedule::RateLimit{0.5, 3}));
  EXPECT_EQ(config->defaults.targets.first_token, seconds(5));
  EXPECT_EQ(pool.policy, schedule::PolicyKind::quota);
  EXPECT_EQ(pool.prefill, 2u);
  EXPECT_EQ(pool.decode, 3u);
  EXPECT_EQ(pool.fabric, "net");
  EXPECT_EQ(pool.threads, 4u);
  EXPECT_EQ(pool.berths, 3u);
  EXPECT_EQ(pool.berth_bytes, std::uint64_t{2} << 30);
  EXPECT_EQ(pool.kv_bytes, 512u << 20);
  EXPECT_EQ(pool.host_kv_bytes, std::uint64_t{4} << 30);
  EXPECT_EQ(pool.cache_bytes, std::uint64_t{8} << 30);
  EXPECT_EQ(pool.admission.max_waiting, 50u);
  EXPECT_TRUE(pool.admission.shed_overload);
  EXPECT_EQ(pool.admission.attainment, 0.8);
  EXPECT_EQ(pool.admission.key_rate, (schedule::RateLimit{2, 5}));
  EXPECT_EQ(pool.max_queue, 10u);
  EXPECT_TRUE(pool.control_tls);
  EXPECT_EQ(pool.trace, "/etc/trace.jsonl");
  EXPECT_EQ(config->host, "0.0.0.0");
  EXPECT_EQ(config->port, 9000);
  EXPECT_EQ(config->api_keys, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(config->admin_keys, std::vector<std::string>{"root"});
  EXPECT_TRUE(config->watch);
}

TEST(Config, OneModelHasAShortForm) {
  auto config = parse_config("model: models/Qwen2.5-0.5B\ndefaults: {ttft: 3s}", "/etc");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->pool.models.size(), 1u);
  EXPECT_EQ(config->pool.models[0].id, "Qwen2.5-0.5B");
  EXPECT_EQ(config->pool.models[0].path, "/etc/models/Qwen2.5-0.5B");
  EXPECT_EQ(config->pool.models[0].targets.first_token, seconds(3));
  config = parse_config("model: a.gguf\nserved_name: other");
  EXPECT_EQ(config->pool.models.at(0).id, "other");
  config = parse_config("served_name: small");  // the default model, under another name
  EXPECT_EQ(config->pool.models.at(0).id, "small");
  EXPECT_TRUE(config->pool.models.at(0).path.empty());
}

TEST(Config, AnEmptyFileIsTheDefault) {
  EXPECT_EQ(parse_config("")->port, 8000);
  EXPECT_EQ(parse_config("# nothing\n")->pool.models.size(), 0u);
  EXPECT_TRUE(parse_config("models:\ndefaults:\ninstances:\n"));
}

TEST(Config, ARateOfZeroIsNoLimit) {
  const auto config = parse_config(
      "defaults: {rate: {per_second: 4, burst: 9}}\nmodels: [{path: a, rate: {per_second: 0}}, {path: b}]\n"
      "admission: {key_rate: {per_second: 0}}");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->pool.models[0].rate, schedule::RateLimit{});
  EXPECT_EQ(config->pool.models[1].rate, (schedule::RateLimit{4, 9}));
  EXPECT_EQ(config->pool.admission.key_rate, schedule::RateLimit{});
}

TEST(Config, ErrorsNameTheLineAndTheKey) {
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"modle: a", "line 1: 'modle' is not known"},
           {"control_tls: perhaps", "line 1: control_tls: must be true or false"},
           {"model: a\nthreads: many", "line 2: threads: 'many' is not a number"},
           {"listen: {port: 70000}", "line 1: listen.port: '70000' is not a number"},
           {"kv_memory: lots", "line 1: kv_memory: 'lots' is no size"},
           {"instances: {prefill: 1}", "each needs the other"},
           {"instances: {}", "there are none"},
           {"instances: {unified: 65}", "line 1: instances.unified: '65' is not"},
           {"api_keys: secret", "line 1: api_keys must be a list"},
           {"port: 1\napi_keys: []", "line 1: 'port' is not known"},
           {"\napi_keys: []", "line 2: api_keys: the list is empty"},
           {"admin_keys: []", "line 1: admin_keys: the list is empty"},
           {"api_keys: [a,\n a]", "line 2: api_keys: this key is there twice"},
           {"api_keys: [[]]", "line 1: api_keys: a key must be a string"},
           {"threads: 1\nfabric: shm\nthreads: 2", "line 3: threads is there twice"},
           {"listen: {port: 1, port: 2}", "line 1: listen.port is there twice"},
           {"models:\n - {path: a, ttft: 1s, ttft: 2s}", "line 2: models[0].ttft is there twice"},
           {"models: []", "line 1: models: the list is empty"},
           {"models: {a: b}", "line 1: models must be a list"},
           {"models: [a]", "line 1: models[0] must be a mapping"},
           {"models: [{name: a}]", "model 'a'"},
           {"models:\n- {path: a.gguf}\n- {path: b/a.gguf}",
            "line 3: models[1]: there is a model 'a' already"},
           {"models:\n- {path: a, colour: red}", "line 2: 'colour' is not known in models[0]"},
           {"models: [{path: a, ttft: soon}]", "line 1: models[0].ttft: 'soon' is no duration"},
           {"models: [{path: a, ttft: 0}]", "ttft is 0 s"},
           {"models: [{path: a, tbt: 2h}]", "models[0].tbt: '2h' is no duration"},
           {"models: [{path: a, weight: -1}]", "models[0].weight: '-1' is not a number"},
           {"models: [{path: a, weight: nan}]", "models[0].weight: 'nan' is not a number"},
           {"models: [{path: a, weight: 0}]", "weight is 0"},
           {"models: [{path: a, pinned: maybe}]", "models[0].pinned: must be true or false"},
           {"models: [{path: a, rate: 5}]", "models[0].rate must be a mapping"},
           {"models: [{path: a, rate: {per_second: 1, burst: 0.5}}]", "rate.burst is 0.5"},
           {"models: [{path: a, rate: {burst: 5}}]", "nothing without rate.per_second"},
           {"models: [{path: a, rate: {burst: 5, per_second: 0}}]", "nothing without rate.per_second"},
           {"models: [{path: a, rate: {per_second: 0, burst: 5}}]", "nothing without rate.per_second"},
           {"admission: {key_rate: {burst: 5}}", "admission.key_rate: rate.burst is nothing without"},
           {"admission: {key_rate: {per_second: 0, burst: 5}}", "admission.key_rate: rate.burst is nothing"},
           {"models: [{path: a, pinned: true}, {path: b, pinned: true}]", "2 are pinned in 2 berths"},
           {"models: [{path: a}]\nmodel: b", "line 1: models: model and served_name are the short form"},
           {"defaults: {name: a}", "line 1: 'name' is not known in defaults"},
           {"defaults: {tbt: 0}", "line 1: defaults: tbt is 0 s"},
           {"policy: best", "line 1: policy: "},
           {"berths: 0", "line 1: berths: '0' is not a number from 1"},
           {"admission: {attainment: 1.5}", "line 1: admission.attainment: '1.5' is not a number"},
           {"admission:\n  key_rate: {per_hour: 1}", "line 2: 'per_hour' is not known in admission.key_rate"},
           {"trace: ''", "line 1: trace: must be a path"},
           {"a: 1\n---\nb: 2", "line 2: a second document"},
           {", \"nah\"{\"path\"", "line 1: a second document or stray text"},
           {"model: a\n, b", "line 2: "},
           {"a: 1\n...\n, b", "line 3: a second document or stray text"},
           {std::string("model: a\n\0", 10), "line 2: holds a NUL byte"},
           {"[1, 2]", "must be a mapping"},
           {"model: [", "line"},
           {"model: &a [*a]", "line"},
           {"<<: {model: a}", "is not known"},
       }) {
    const auto config = parse_config(text);
    ASSERT_FALSE(config) << text;
    EXPECT_NE(config.error().message.find(expected), std::string::npos)
        << text << " -> " << config.error().message;
  }
}

TEST(Config, TheExampleIsSound) {
  EXPECT_EQ(load_config("docs").error().code, ErrorCode::invalid);
  const auto config = load_config("docs/examples/serve.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->pool.models.size(), 3u);
}

TEST(Config, IsBounded) {
  EXPECT_FALSE(parse_config(std::string((1 << 20) + 1, '#')));
  EXPECT_FALSE(parse_config("models: " + std::string(100000, '[')));
  std::string many = "models:\n";
  for (int i = 0; i < 1100; ++i) many += "- {path: m" + std::to_string(i) + "}\n";
  const auto config = parse_config(many);
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().message.find("at most 1024"), std::string::npos);
  EXPECT_LT(parse_config(std::string(5000, 'k') + ": 1").error().message.size(), 1000u);
}

TEST(Config, TellsWhichKeysNeedARestart) {
  const auto now = *parse_config("models: [{path: a}]");
  EXPECT_TRUE(
      keys_for_restart(now, *parse_config("models: [{path: b}, {path: c}]\ndefaults: {ttft: 1s}")).empty());
  EXPECT_EQ(keys_for_restart(now, *parse_config("threads: 7\nlisten: {port: 1}\nwatch: true")),
            (std::vector<std::string>{"threads", "listen", "watch"}));
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
