// ServedText over the tokenizer and chat template in a model's image.
#include <utility>

#include "gateway/gateway.h"
#include "gateway/served_text.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace switchyard::gateway {
namespace {

class ModelDecoder final : public TextDecoder {
 public:
  explicit ModelDecoder(const model::Tokenizer& tokenizer) : stream_(tokenizer) {}
  std::string push(std::int32_t token) override { return stream_.push(token); }
  std::string finish() override { return stream_.finish(); }

 private:
  model::TextStream stream_;
};

class ModelText final : public ServedText {
 public:
  ModelText(std::unique_ptr<const model::Tokenizer> tokenizer,
            std::unique_ptr<const model::ChatTemplate> chat_template, std::vector<std::int32_t> end_tokens)
      : tokenizer_(std::move(tokenizer)),
        template_(std::move(chat_template)),
        end_tokens_(std::move(end_tokens)) {
    const model::TokenizerSpec& spec = tokenizer_->spec();
    if (spec.bos >= 0) bos_ = tokenizer_->token_bytes(spec.bos);
    if (spec.eos >= 0) eos_ = tokenizer_->token_bytes(spec.eos);
  }

  std::vector<std::int32_t> encode(std::string_view text, bool add_special, std::size_t most) const override {
    return tokenizer_->encode(text, {.add_special = add_special, .parse_special = true, .max_tokens = most});
  }

  Result<std::string> render_chat(const nlohmann::ordered_json& messages,
                                  const nlohmann::ordered_json& tools) const override {
    if (template_ == nullptr) {
      return fail(ErrorCode::unsupported, "the model has no chat template; use /v1/completions");
    }
    nlohmann::ordered_json context{
        {"messages", messages}, {"add_generation_prompt", true}, {"bos_token", bos_}, {"eos_token", eos_}};
    if (!tools.is_null()) context["tools"] = tools;
    return template_->render(context);
  }

  std::string token_bytes(std::int32_t token) const override { return tokenizer_->token_bytes(token); }
  std::string decode(std::span<const std::int32_t> tokens) const override {
    return tokenizer_->decode(tokens);
  }
  std::unique_ptr<TextDecoder> decoder() const override {
    return std::make_unique<ModelDecoder>(*tokenizer_);
  }
  std::uint32_t vocab_size() const override { return tokenizer_->vocab_size(); }
  const std::vector<std::int32_t>& end_tokens() const override { return end_tokens_; }

 private:
  std::unique_ptr<const model::Tokenizer> tokenizer_;
  std::unique_ptr<const model::ChatTemplate> template_;
  std::vector<std::int32_t> end_tokens_;
  std::string bos_;
  std::string eos_;
};

}  // namespace

Result<std::shared_ptr<const ServedText>> served_text_from_image(const pool::ServedModel& model) {
  if (model.image == nullptr) return fail(ErrorCode::invalid, "the model has no image");
  auto spec = model::TokenizerSpec::parse(model.image->tokenizer());
  if (!spec) return fail_at("tokenizer", spec.error());
  std::unique_ptr<const model::ChatTemplate> chat_template;
  if (!spec->chat_template.empty()) {
    auto parsed = model::ChatTemplate::parse(spec->chat_template);
    if (!parsed) return fail_at("chat template", parsed.error());
    chat_template = std::move(*parsed);
  }
  auto tokenizer = model::Tokenizer::create(std::move(*spec));
  if (!tokenizer) return fail_at("tokenizer", tokenizer.error());
  return std::make_shared<const ModelText>(std::move(*tokenizer), std::move(chat_template),
                                           model.image->config().end_tokens);
}

Result<std::unique_ptr<Gateway>> Gateway::start(GatewayOptions options, pool::Generator& generator) {
  return start(std::move(options), generator, {}, served_text_from_image);
}

Result<std::unique_ptr<Gateway>> Gateway::start(GatewayOptions options, pool::Generator& generator,
                                                GatewayControls controls) {
  return start(std::move(options), generator, std::move(controls), served_text_from_image);
}

}  // namespace switchyard::gateway
