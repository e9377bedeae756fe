#include "model_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "base/thread_team.h"
#include "model/cpu/kernels.h"
#include "model/packed_matrix.h"
#include "step_timer.h"

namespace switchyard::bench {
namespace {

// Bytes per second at which the team reads `bytes` bytes that it wrote before.
double read_bandwidth(ThreadTeam& team, std::size_t bytes, double seconds) {
  constexpr std::size_t kRun = 128;  // floats that are read at once
  const std::size_t runs = bytes / sizeof(float) / kRun;
  const std::unique_ptr<float[]> buffer(new float[runs * kRun]);
  const model::cpu::Kernels& kernels = model::cpu::best_kernels();
  std::vector<float> results(team.size() * 16);
  const auto part = [&](std::uint32_t member) {
    const std::size_t first = runs * member / team.size() * kRun;
    return std::span(buffer.get() + first, runs * (member + 1) / team.size() * kRun - first);
  };
  team.run([&](std::uint32_t member) { std::ranges::fill(part(member), 1.0f); });
  const auto time = median_time(seconds, [&]() -> Status {
    team.run([&](std::uint32_t member) {
      results[member * 16] = kernels.read_all(part(member).data(), part(member).size());
    });
    return {};
  });
  return static_cast<double>(runs * kRun * sizeof(float)) / *time;
}

// Multiply-adds per second of the whole team.
double multiply_rate(ThreadTeam& team, double seconds) {
  constexpr std::uint32_t kRounds = 200000;
  const model::cpu::Kernels& kernels = model::cpu::best_kernels();
  std::vector<float> results(team.size() * 16);
  const auto time = median_time(seconds, [&]() -> Status {
    team.run([&](std::uint32_t member) { results[member * 16] = kernels.fma_chains(kRounds); });
    return {};
  });
  return team.size() * 24.0 * 16.0 * kRounds / *time;
}

// What one step over the weights costs at least.
struct Work {
  double weight_bytes = 0;    // read by every step
  double layer_products = 0;  // multiply-adds of a row in all layers
  double output_products = 0;
};

Result<Work> work_of(const model::ModelImage& image) {
  const model::ModelConfig& config = image.config();
  Work work;
  work.weight_bytes = static_cast<double>(image.bytes().size());
  auto embedding = image.matrix("embedding");
  if (!embedding) return pass(embedding.error());
  // Only a row of it is read where the output has a matrix of its own.
  if (!config.tied_embeddings) work.weight_bytes -= static_cast<double>(embedding->bytes.size());
  const double q = static_cast<double>(config.heads) * config.head_dim;
  const double kv = static_cast<double>(config.kv_heads) * config.head_dim;
  const double hidden = config.hidden;
  work.layer_products =
      config.layers * (hidden * (q + 2 * kv) + q * hidden + 3.0 * hidden * config.intermediate);
  work.output_products = hidden * config.vocab;
  return work;
}

struct Row {
  const char* kind = "";
  std::uint32_t requests = 1;
  std::uint32_t tokens = 0;  // of the prompt, or of the context
  double rate = 0;           // tokens per second
  double milliseconds = 0;   // of a step
  double of_floor = 0;       // the floor's time over the step's
};

class Bench {
 public:
  static Result<std::unique_ptr<Bench>> create(const ModelBenchOptions& options) {
    auto image = model::ModelImage::open(options.model);
    if (!image) return pass(image.error());
    const std::uint32_t batch = *std::max_element(options.batches.begin(), options.batches.end());
    const std::uint32_t context = *std::max_element(options.contexts.begin(), options.contexts.end());
    const std::uint32_t longest = *std::max_element(options.prompts.begin(), options.prompts.end());
    auto timer = StepTimer::create(*std::move(image), {.threads = options.threads,
                                                       .longest = longest,
                                                       .batch = batch,
                                                       .decode_tokens = decode_tokens(batch, context),
                                                       .seconds = options.seconds});
    if (!timer) return pass(timer.error());
    return std::unique_ptr<Bench>(new Bench(options, *std::move(timer)));
  }

  Result<std::vector<Row>> run() {
    auto work = work_of(image());
    if (!work) return pass(work.error());
    {
      ThreadTeam team(threads());
      bandwidth = read_bandwidth(team, image().bytes().size(), options_.seconds);
      rate = multiply_rate(team, options_.seconds);
    }
    std::vector<Row> rows;
    for (const std::uint32_t tokens : options_.prompts) {
      auto row = prefill(tokens, *work);
      if (!row) return pass(row.error());
      rows.push_back(*row);
    }
    for (const std::uint32_t context : options_.contexts) {
      for (const std::uint32_t batch : options_.batches) {
        auto row = decode(batch, context, *work);
        if (!row) return pass(row.error());
        rows.push_back(*row);
      }
    }
    return rows;
  }

  std::uint32_t threads() const { return timer_->threads(); }
  const model::ModelImage& image() const { return timer_->image(); }
  double bandwidth = 0;  // bytes per second
  double rate = 0;       // multiply-adds per second

 private:
  Bench(const ModelBenchOptions& options, std::unique_ptr<StepTimer> timer)
      : options_(options), timer_(std::move(timer)), layout_(model::kv_layout(timer_->image().config())) {}

  double kv_bytes(double tokens) const {
    return tokens * static_cast<double>(layout_.block_bytes()) / model::kBlockTokens;
  }

  // Multiply-adds of one row that sees so many tokens.
  double attention(double tokens) const {
    const model::ModelConfig& config = image().config();
    return 2.0 * config.layers * config.heads * config.head_dim * tokens;
  }

  Result<Row> prefill(std::uint32_t tokens, const Work& work) {
    std::fprintf(stderr, "prefill of %u tokens\n", tokens);
    const auto time = timer_->prefill(tokens);
    if (!time) return pass(time.error());
    const model::ModelConfig& config = image().config();
    const double attention =
        2.0 * config.layers * config.heads * config.head_dim * tokens * (tokens + 1.0) / 2;
    const double floor = (tokens * work.layer_products + work.output_products + attention) / rate;
    return Row{"prefill", 1, tokens, tokens / *time, *time * 1e3, floor / *time};
  }

  Result<Row> decode(std::uint32_t batch, std::uint32_t context, const Work& work) {
    std::fprintf(stderr, "decode of %u requests at %u tokens\n", batch, context);
    const auto time = timer_->decode(batch, context);
    if (!time) return pass(time.error());
    const double read = (work.weight_bytes + batch * kv_bytes(context)) / bandwidth;
    const double multiply = batch * (work.layer_products + work.output_products + attention(context)) / rate;
    const double floor = std::max(read, multiply);
    return Row{"decode", batch, context, batch / *time, *time * 1e3, floor / *time};
  }

  const ModelBenchOptions& options_;
  std::unique_ptr<StepTimer> timer_;
  model::KvLayout layout_;
};

const char* isa_name() {
  switch (model::cpu::best_kernels().isa) {
    case model::cpu::Isa::scalar:
      return "scalar";
    case model::cpu::Isa::avx2:
      return "avx2";
    case model::cpu::Isa::avx512:
      return "avx512";
  }
  return "";
}

void print_table(const Bench& bench, const std::vector<Row>& rows) {
  fmt::print("{}: {:.1f} MB of weights, {} threads, {} kernels\n", bench.image().config().name,
             static_cast<double>(bench.image().bytes().size()) / 1e6, bench.threads(), isa_name());
  fmt::print("floors: reading memory {:.1f} GB/s, multiply-adds {:.1f} G/s\n\n", bench.bandwidth / 1e9,
             bench.rate / 1e9);
  fmt::print("{:<8} {:>8} {:>8} {:>12} {:>12} {:>10}\n", "", "requests", "tokens", "tokens/s", "ms/step",
             "of floor");
  for (const Row& row : rows) {
    fmt::print("{:<8} {:>8} {:>8} {:>12.1f} {:>12.2f} {:>9.0f}%\n", row.kind, row.requests, row.tokens,
               row.rate, row.milliseconds, row.of_floor * 100);
  }
  fmt::print(
      "\n\"tokens\" are those of the prompt, or of each request's context. The floor of a prefill is its "
      "multiply-adds,\nthat of a decode step the same or reading weights, keys and values, whichever is "
      "longer.\n");
}

void print_json(const Bench& bench, const std::vector<Row>& rows) {
  nlohmann::json json = {{"model", bench.image().config().name},
                         {"weight_bytes", bench.image().bytes().size()},
                         {"threads", bench.threads()},
                         {"kernels", isa_name()},
                         {"read_bytes_per_second", bench.bandwidth},
                         {"multiply_adds_per_second", bench.rate},
                         {"rows", nlohmann::json::array()}};
  for (const Row& row : rows) {
    json["rows"].push_back({{"kind", row.kind},
                            {"requests", row.requests},
                            {"tokens", row.tokens},
                            {"tokens_per_second", row.rate},
                            {"milliseconds_per_step", row.milliseconds},
                            {"of_floor", row.of_floor}});
  }
  fmt::print("{}\n", json.dump(2));
}

}  // namespace

Status run_model_bench(const ModelBenchOptions& options) {
  if (options.prompts.empty() || options.batches.empty() || options.contexts.empty()) {
    return fail(ErrorCode::invalid, "prompts, batches and contexts must each have an entry");
  }
  auto bench = Bench::create(options);
  if (!bench) return pass(bench.error());
  const auto rows = (*bench)->run();
  if (!rows) return pass(rows.error());
  if (options.json) {
    print_json(**bench, *rows);
  } else {
    print_table(**bench, *rows);
  }
  return {};
}

}  // namespace switchyard::bench
