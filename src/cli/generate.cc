// `switchyard generate`: text for prompts, on the terminal, through the same processes that serve.
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.h"
#include "base/random.h"
#include "cli/commands.h"
#include "cli/pool_options.h"
#include "cli/terminal.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace switchyard::cli {
namespace {

struct Arguments {
  PoolArguments pool;
  std::vector<std::string> prompts;
  std::string prompt_file;
  bool chat = false;
  bool greedy = false;
  bool json = false;
  std::uint32_t max_tokens = 128;
  std::int64_t seed = -1;
  model::SamplingParams sampling;
};

// Collects one request's tokens; prints them as they come when `live`.
class Output final : public pool::GenerationSink {
 public:
  Output(std::shared_ptr<const model::Tokenizer> tokenizer, bool live)
      : tokenizer_(std::move(tokenizer)), stream_(*tokenizer_), live_(live) {}

  void on_token(const model::SampledToken& token) override {
    const std::lock_guard lock(mutex_);
    tokens_.push_back(token.token);
    add(stream_.push(token.token));
  }
  void on_end(const pool::GenerationEnd& end) override {
    {
      const std::lock_guard lock(mutex_);
      add(stream_.finish());
      end_ = end;
      over_ = true;
    }
    changed_.notify_all();
  }

  const pool::GenerationEnd& wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return over_; });
    return end_;
  }
  const std::string& text() const { return text_; }
  const std::vector<std::int32_t>& tokens() const { return tokens_; }

 private:
  void add(const std::string& text) {
    text_ += text;
    if (live_) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
  }

  const std::shared_ptr<const model::Tokenizer> tokenizer_;
  model::TextStream stream_;
  const bool live_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  pool::GenerationEnd end_;
  std::string text_;
  std::vector<std::int32_t> tokens_;
};

Result<std::vector<std::string>> read_prompts(const Arguments& arguments) {
  std::vector<std::string> prompts = arguments.prompts;
  if (!arguments.prompt_file.empty()) {
    std::ifstream file;
    if (arguments.prompt_file != "-") {
      file.open(arguments.prompt_file, std::ios::binary);
      std::error_code error;
      if (!file || std::filesystem::is_directory(arguments.prompt_file, error))
        return fail(ErrorCode::not_found, "cannot read {}", arguments.prompt_file);
    }
    std::istream& stream = arguments.prompt_file == "-" ? std::cin : file;
    prompts.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  if (prompts.empty()) return fail(ErrorCode::invalid, "no prompt: give --prompt TEXT or --prompt-file FILE");
  return prompts;
}

Result<std::vector<std::int32_t>> encode(const model::Tokenizer& tokenizer, const std::string& prompt,
                                         bool chat) {
  if (!chat) return tokenizer.encode(prompt, {});
  const auto& spec = tokenizer.spec();
  if (spec.chat_template.empty())
    return fail(ErrorCode::unsupported, "this model has no chat template; omit --chat");
  auto source = model::ChatTemplate::parse(spec.chat_template);
  if (!source) return pass(source.error());
  const nlohmann::json context = {{"messages", {{{"role", "user"}, {"content", prompt}}}},
                                  {"add_generation_prompt", true},
                                  {"bos_token", tokenizer.token_bytes(spec.bos)},
                                  {"eos_token", tokenizer.token_bytes(spec.eos)}};
  auto text = (*source)->render(context);
  if (!text) return pass(text.error());
  return tokenizer.encode(*text, {.add_special = false});
}

Status generate(Arguments& arguments) {
  const auto prompts = read_prompts(arguments);
  if (!prompts) return pass(prompts.error());
  pool::PoolConfig config;
  if (auto applied = apply(arguments.pool, config); !applied) return applied;
  auto pool = start_pool(config);
  if (!pool) return pass(pool.error());
  if (auto ready = wait_ready(**pool); !ready) return ready;
  pool::Generator& generator = (*pool)->generator();
  const pool::ServedModel model = generator.models().front();
  auto spec = model::TokenizerSpec::parse(model.image->tokenizer());
  if (!spec) return pass(spec.error());
  auto created = model::Tokenizer::create(*std::move(spec));
  if (!created) return pass(created.error());
  const std::shared_ptr<const model::Tokenizer> tokenizer = *std::move(created);

  model::SamplingParams sampling = arguments.sampling;
  if (arguments.greedy) sampling.temperature = 0;
  sampling.seed = arguments.seed >= 0 ? static_cast<std::uint64_t>(arguments.seed) : random_word();
  if (auto valid = model::validate(sampling, model.image->config().vocab); !valid) return valid;

  std::vector<std::shared_ptr<Output>> outputs;
  std::vector<pool::RequestId> ids;
  std::vector<std::size_t> prompt_tokens;
  const bool live = !arguments.json && prompts->size() == 1;
  for (const std::string& prompt : *prompts) {
    auto tokens = encode(*tokenizer, prompt, arguments.chat);
    if (!tokens) return pass(tokens.error());
    if (tokens->empty()) return fail(ErrorCode::invalid, "the prompt is empty");
    if (tokens->size() >= model.context) {
      return fail(ErrorCode::out_of_range,
                  "the prompt has {} tokens; this model and its KV memory take {} in all", tokens->size(),
                  model.context);
    }
    const auto room = static_cast<std::uint32_t>(model.context - tokens->size());
    prompt_tokens.push_back(tokens->size());
    outputs.push_back(std::make_shared<Output>(tokenizer, live));
    auto id = generator.submit({.model = model.id,
                                .prompt = *std::move(tokens),
                                .sampling = sampling,
                                .max_tokens = std::min(arguments.max_tokens, room),
                                .end_tokens = model.image->config().end_tokens},
                               outputs.back());
    if (!id) return tl::unexpected<Error>(id.error().error);
    ids.push_back(*id);
  }
  // Ctrl-C cancels; the waits below end then.
  std::thread interrupt([&generator, &ids] {
    wait_for_stop();
    for (const auto id : ids) generator.cancel(id);
  });
  Status result;
  for (std::size_t i = 0; i < outputs.size() && result; ++i) {
    const auto& end = outputs[i]->wait();
    if (end.reason == pool::FinishReason::failed) result = pass(end.error);
    if (end.reason == pool::FinishReason::cancelled) result = fail(ErrorCode::cancelled, "interrupted");
    if (!result) break;
    if (arguments.json) {
      const nlohmann::json line = {
          {"text", outputs[i]->text()},
          {"token_ids", outputs[i]->tokens()},
          {"prompt_tokens", prompt_tokens[i]},
          {"finish_reason", end.reason == pool::FinishReason::length ? "length" : "stop"}};
      fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      fmt::print("{}\n", live ? "" : outputs[i]->text());
    }
  }
  pthread_kill(interrupt.native_handle(), SIGTERM);
  interrupt.join();
  if (result && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
    return fail(ErrorCode::io, "the output could not be written");
  }
  return result;
}

}  // namespace

void add_generate(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("generate", "Generate text for a prompt and print it");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("-p,--prompt", arguments->prompts, "Text to continue; several are computed together")
      ->allow_extra_args(false);
  command->add_option("--prompt-file", arguments->prompt_file, "File to continue; - is standard input");
  command->add_flag("--chat", arguments->chat,
                    "The prompt is a user's message: put it into the model's chat template");
  command->add_flag("--json", arguments->json, "Print one JSON object per prompt: text, token_ids, ...");
  command->add_option("-n,--max-tokens", arguments->max_tokens, "Tokens to generate at most (default: 128)")
      ->check(CLI::Range(1u, 1u << 24));
  command->add_flag("--greedy", arguments->greedy, "Take the most likely token every time");
  command->add_option("--temperature", arguments->sampling.temperature, "Default: 1");
  command->add_option("--top-k", arguments->sampling.top_k, "Only the k most likely tokens");
  command->add_option("--top-p", arguments->sampling.top_p,
                      "Only the most likely tokens of this much probability");
  command->add_option("--min-p", arguments->sampling.min_p,
                      "Only tokens this likely, relative to the most likely");
  command->add_option("--repetition-penalty", arguments->sampling.repetition_penalty, "Default: 1");
  command->add_option("--seed", arguments->seed, "The same seed gives the same text (default: random)");
  add_pool_options(*command, arguments->pool);
  command->callback([&chosen, arguments] {
    chosen = [arguments] {
      // Instances write to the same terminal; their progress is not what was asked for.
      setenv("SWITCHYARD_LOG", "error", 0);
      log::start("generate", "error");
      if (auto status = generate(*arguments); !status) {
        return status.error().code == ErrorCode::cancelled ? 130 : report(status.error());
      }
      return 0;
    };
  });
}

}  // namespace switchyard::cli
