#include "pool/held_request.h"

#include <algorithm>

#include "model/sampler.h"

namespace switchyard::pool {

Status check(const HeldRequest& request, const model::ModelConfig& config) {
  const std::uint64_t most = std::uint64_t{request.what.max_tokens} + request.prompt_tokens;
  if (request.prompt_tokens == 0 || request.output().size() >= request.what.max_tokens ||
      most > config.context) {
    return fail(
        ErrorCode::invalid,
        "{} prompt tokens with {} of {} output tokens cannot be computed by a model with a context of {}",
        request.prompt_tokens, request.output().size(), request.what.max_tokens, config.context);
  }
  const auto vocab = static_cast<std::int32_t>(config.vocab);
  for (const std::int32_t token : request.history) {
    if (token < 0 || token >= vocab) {
      return fail(ErrorCode::invalid, "token {} is outside of the vocabulary of {}", token, vocab);
    }
  }
  return model::validate(request.what.sampling, config.vocab);
}

Status take_news(HeldRequest& request, std::span<const std::int32_t> news) {
  const std::uint64_t after = request.history.size() + news.size();
  if (after > std::uint64_t{request.prompt_tokens} + request.what.max_tokens) {
    return fail(ErrorCode::invalid, "{} more tokens are more than the {} that the request may have",
                news.size(), request.what.max_tokens);
  }
  request.history.insert(request.history.end(), news.begin(), news.end());
  return {};
}

}  // namespace switchyard::pool
