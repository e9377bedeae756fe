#include "model/chat_template.h"

#include <new>

#include "model/jinja_evaluator.h"
#include "model/jinja_syntax.h"

namespace switchyard::model {
namespace {

constexpr std::size_t kMaxSourceBytes = 1 << 20;

// The interpreter throws; here its failures become values.
template <class Run>
auto guarded(Run run) -> Result<decltype(run())> {
  try {
    return run();
  } catch (const jinja::Failure& failure) {
    return fail(failure.code, "chat template: {}", failure.what());
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::exhausted, "chat template: no memory is left");
  } catch (const std::exception& error) {
    return fail(ErrorCode::invalid, "chat template: {}", error.what());
  }
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::unique_ptr<const ChatTemplate>> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return fail(ErrorCode::unsupported, "chat template: {} bytes; at most {} are read", source.size(),
                kMaxSourceBytes);
  }
  return guarded([&] {
    auto program = std::make_unique<Program>();
    program->body = jinja::parse(source);
    return std::make_unique<const ChatTemplate>(std::unique_ptr<const Program>(std::move(program)));
  });
}

Result<std::string> ChatTemplate::render(const nlohmann::json& context) const {
  return guarded([&] { return jinja::Evaluator(jinja::Value::from_json(context)).run(program_->body); });
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& context) const {
  return guarded([&] { return jinja::Evaluator(jinja::Value::from_json(context)).run(program_->body); });
}

}  // namespace switchyard::model
