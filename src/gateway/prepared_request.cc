#include "gateway/prepared_request.h"

#include <chrono>

#include "base/random.h"

namespace switchyard::gateway {
namespace {

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// A prompt that is somewhat too long is told its length; what is far too long is not worth finding it out.
std::size_t most_tokens(const ModelEntry& model) { return std::size_t{model.served.context} + 4096; }

// Checks that prompt and output fit the context, and says how long the output may be.
ApiResult<std::uint32_t> output_room(const ModelEntry& model, std::size_t prompt_tokens,
                                     std::optional<std::uint32_t> max_tokens, const char* param) {
  const std::uint64_t context = model.served.context;
  const std::uint64_t wanted = max_tokens.value_or(1);
  if (prompt_tokens + wanted <= context) {
    return max_tokens.value_or(static_cast<std::uint32_t>(context - prompt_tokens));
  }
  auto error =
      max_tokens && prompt_tokens < context
          ? invalid_field(param,
                          "This model's maximum context length is {} tokens. However, your request needs {} "
                          "tokens ({} in the {}, {} for the completion). Shorten it or ask for fewer tokens.",
                          context, prompt_tokens + wanted, prompt_tokens, param, wanted)
          : invalid_field(
                param,
                "This model's maximum context length is {} tokens. However, your {} resulted in {}{} "
                "tokens. Please reduce the length of the {}.",
                context, param, prompt_tokens > most_tokens(model) ? "at least " : "", prompt_tokens, param);
  error.code = "context_length_exceeded";
  return tl::unexpected(std::move(error));
}

// What does not depend on the endpoint.
ApiResult<std::shared_ptr<PreparedRequest>> prepare_common(CommonRequest&& common, const ModelTable& models,
                                                           const RequestLimits& limits, std::size_t prompts) {
  auto model = models.find(common.model);
  if (!model) return tl::unexpected(std::move(model.error()));
  // A choice of no tokens is none of the pool's business.
  const std::uint64_t choices = common.max_tokens == 0u ? 0 : std::uint64_t{prompts} * common.n;
  if (auto error = never_admitted(limits.admission, (*model)->limits, common.model, choices,
                                  common.n > 1 ? "n" : "prompt")) {
    return tl::unexpected(*std::move(error));
  }
  const std::uint32_t vocab = (*model)->text->vocab_size();
  for (const auto& bias : common.sampling.logit_bias) {
    if (static_cast<std::uint32_t>(bias.token) < vocab) continue;
    return tl::unexpected(invalid_field("logit_bias", "'logit_bias' names token {}; the model has {} tokens.",
                                        bias.token, vocab));
  }
  auto prepared = std::make_shared<PreparedRequest>();
  prepared->model = *model;
  prepared->n = common.n;
  prepared->refill = refill_time(limits.admission, (*model)->limits, choices);
  prepared->sampling = std::move(common.sampling);
  prepared->sampling.seed = common.seed ? *common.seed : random_word();
  if (prepared->sampling.top_k >= vocab) prepared->sampling.top_k = 0;  // all of them: no limit
  if (!common.ignore_eos) prepared->end_tokens = (*model)->text->end_tokens();
  prepared->stops = std::move(common.stops);
  prepared->stream = common.stream;
  prepared->include_usage = common.include_usage;
  prepared->keep_tokens = prepared->sampling.logprobs || common.return_token_ids;
  return prepared;
}

ReplyHead reply_head(PreparedRequest& prepared, std::string_view prefix, bool token_ids) {
  prepared.id = fmt::format("{}{:016x}{:016x}", prefix, random_word(), random_word());
  ReplyHead head;
  head.id = prepared.id;
  head.created = unix_seconds();
  head.model = prepared.model->served.id;
  head.include_usage = prepared.include_usage;
  head.logprobs = prepared.sampling.logprobs;
  head.top_logprobs = prepared.sampling.top_logprobs > 0;
  head.token_ids = token_ids;
  head.text = prepared.model->text;
  return head;
}

ApiResult<PreparedPrompt> prepare_prompt(const ModelEntry& model, CompletionPrompt&& prompt, bool echo) {
  PreparedPrompt prepared;
  if (auto* text = std::get_if<std::string>(&prompt)) {
    prepared.tokens = model.text->encode(*text, true, most_tokens(model));
    if (echo) prepared.echo = std::move(*text);
  } else {
    prepared.tokens = std::move(std::get<std::vector<std::int32_t>>(prompt));
    const std::uint32_t vocab = model.text->vocab_size();
    for (const std::int32_t token : prepared.tokens) {
      if (static_cast<std::uint32_t>(token) < vocab) continue;
      return tl::unexpected(
          invalid_field("prompt", "'prompt' holds token {}; the model has {} tokens.", token, vocab));
    }
    if (echo) prepared.echo = model.text->decode(prepared.tokens);
  }
  if (prepared.tokens.empty()) {
    return tl::unexpected(invalid_field("prompt", "'prompt' must hold at least one token."));
  }
  return prepared;
}

}  // namespace

Preparation prepare_chat(std::string_view body, const ModelTable& models, const RequestLimits& limits) {
  auto request = parse_chat_request(body, limits);
  if (!request) return tl::unexpected(std::move(request.error()));
  const bool token_ids = request->common.return_token_ids;
  const auto max_tokens = request->common.max_tokens;
  auto prepared = prepare_common(std::move(request->common), models, limits, 1);
  if (!prepared) return tl::unexpected(std::move(prepared.error()));
  const ModelEntry& model = *(*prepared)->model;

  auto text = model.text->render_chat(request->messages, request->tools);
  if (!text) {
    return tl::unexpected(invalid_field("messages",
                                        "The chat template of '{}' does not take these messages: {}",
                                        model.served.id, text.error().message));
  }
  PreparedPrompt prompt;
  prompt.tokens =
      model.text->encode(*text, false, most_tokens(model));  // the template wrote the special tokens
  if (prompt.tokens.empty()) {
    return tl::unexpected(invalid_field("messages", "'messages' must make at least one token."));
  }
  auto room = output_room(model, prompt.tokens.size(), max_tokens, "messages");
  if (!room) return tl::unexpected(std::move(room.error()));
  prompt.max_tokens = *room;
  (*prepared)->prompts.push_back(std::move(prompt));
  (*prepared)->format = chat_format(reply_head(**prepared, "chatcmpl-", token_ids));
  return *prepared;
}

Preparation prepare_completion(std::string_view body, const ModelTable& models, const RequestLimits& limits) {
  auto request = parse_completion_request(body, limits);
  if (!request) return tl::unexpected(std::move(request.error()));
  const bool token_ids = request->common.return_token_ids;
  const auto max_tokens = request->common.max_tokens;
  auto prepared = prepare_common(std::move(request->common), models, limits, request->prompts.size());
  if (!prepared) return tl::unexpected(std::move(prepared.error()));
  const ModelEntry& model = *(*prepared)->model;

  std::uint64_t echoed = 0;
  for (CompletionPrompt& source : request->prompts) {
    auto prompt = prepare_prompt(model, std::move(source), request->echo);
    if (!prompt) return tl::unexpected(std::move(prompt.error()));
    auto room = output_room(model, prompt->tokens.size(), max_tokens, "prompt");
    if (!room) return tl::unexpected(std::move(room.error()));
    prompt->max_tokens = *room;
    echoed += std::uint64_t{prompt->echo.size()} * (*prepared)->n;
    if (echoed > limits.max_echo_bytes) {
      return tl::unexpected(
          invalid_field("echo", "'echo' would repeat more than {} bytes of prompts. Ask for fewer choices.",
                        limits.max_echo_bytes));
    }
    (*prepared)->prompts.push_back(std::move(*prompt));
  }
  (*prepared)->format = completion_format(reply_head(**prepared, "cmpl-", token_ids));
  return *prepared;
}

std::uint64_t choice_seed(std::uint64_t seed, std::uint32_t index) {
  if (index == 0) return seed;
  // SplitMix64 (Steele, Lea, Flood 2014), index steps behind the seed.
  std::uint64_t x = seed + index * 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

}  // namespace switchyard::gateway
