// A generation request under way: its choices, from the pool's tokens to the client's bytes.
//
// Owned by its exchange. Io thread only. Takes tokens from the queues only while the stream has room; what
// waits is bounded by the queues.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/choice_text.h"
#include "gateway/exchange.h"
#include "gateway/io_loop.h"
#include "gateway/prepared_request.h"
#include "gateway/token_queue.h"
#include "pool/generator.h"
#include "switchyard/time.h"

namespace switchyard::gateway {

struct JobServices {
  pool::Generator* generator = nullptr;
  Metrics* metrics = nullptr;
  std::shared_ptr<IoLoop> loop;
  std::size_t max_queued_tokens = 4096;  // per choice of a stream whose client does not read
};

class GenerationJob final : public Activity, public std::enable_shared_from_this<GenerationJob> {
 public:
  // Submits every choice and answers through the exchange, with an error if any is refused.
  // `client`: whose rate limit counts; 0: nobody's.
  static void start(const JobServices& services, std::shared_ptr<const PreparedRequest> request,
                    std::uint32_t client, const std::shared_ptr<Exchange>& exchange);

  GenerationJob(const JobServices& services, std::shared_ptr<const PreparedRequest> request,
                std::uint32_t client, const std::shared_ptr<Exchange>& exchange);
  ~GenerationJob() override;

  void abandon() override;
  void fail(const ApiError& error) override;
  void resume() override;

 private:
  struct Choice {
    Choice(std::uint32_t choice_index, const PreparedPrompt& choice_prompt, ChoiceText choice_text)
        : index(choice_index), prompt(&choice_prompt), text(std::move(choice_text)) {}

    std::uint32_t index;
    const PreparedPrompt* prompt;
    ChoiceText text;
    std::shared_ptr<TokenQueue> queue;
    pool::RequestId id = 0;
    bool running = false;  // the pool works on it
    bool opened = false;   // its first chunk is sent
    std::string_view finish_reason;
    ChoiceDelta whole;  // everything so far, when not streaming
    TimePoint last_token{};
  };

  tl::expected<void, pool::Refusal> submit(Choice& choice, std::uint32_t sample);
  void on_wake(std::size_t index);
  void advance(Choice& choice, Exchange& exchange);
  // False: the whole job is over.
  bool consume(Choice& choice, TokenQueue::Batch& batch);
  void observe(Choice& choice, std::size_t tokens);
  void deliver(Choice& choice, Exchange& exchange);
  void finish(Choice& choice, std::string_view reason);
  void complete(Exchange& exchange);
  void end_choice(Choice& choice, bool cancel);
  void end_all();

  JobServices services_;
  std::shared_ptr<const PreparedRequest> request_;
  const std::uint32_t client_;
  std::weak_ptr<Exchange> exchange_;
  std::vector<Choice> choices_;
  TimePoint accepted_;
  std::size_t unfinished_ = 0;
  bool streaming_ = false;  // the stream's head is sent
  bool over_ = false;
};

}  // namespace switchyard::gateway
