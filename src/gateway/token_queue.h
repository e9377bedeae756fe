// A generation's tokens on their way from a pool thread to the I/O thread.
//
// Shared by the pool (as sink) and the job. The pool's side never blocks: one lock held for a few
// instructions, one post when the I/O thread does not yet know. Bounded: what does not fit is dropped and the
// queue says so.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "gateway/io_loop.h"
#include "pool/generator.h"
#include "switchyard/time.h"

namespace switchyard::gateway {

class TokenQueue final : public pool::GenerationSink, public std::enable_shared_from_this<TokenQueue> {
 public:
  struct Batch {
    std::vector<model::SampledToken> tokens;
    std::optional<pool::GenerationEnd> end;  // behind all tokens
    bool overflowed = false;                 // tokens are missing behind these
    bool empty() const { return tokens.empty() && !end && !overflowed; }
  };

  // `wake` is called on the I/O thread, once for everything that came since the last take(); from outside of
  // it comes nothing more after close().
  TokenQueue(std::shared_ptr<IoLoop> loop, std::size_t limit, std::function<void()> wake);

  void on_token(const model::SampledToken& token) override;
  void on_end(const pool::GenerationEnd& end) override;

  // I/O thread: at most `most` tokens; the end only when no token is left.
  Batch take(std::size_t most);
  // Tokens are missing: the I/O thread did not take them in time.
  bool overflowed() const;
  // I/O thread: no wake from now on; later tokens are dropped.
  void close();

 private:
  void schedule_wake();

  const std::shared_ptr<IoLoop> loop_;
  const std::size_t limit_;
  std::function<void()> wake_;  // I/O thread only

  mutable std::mutex mutex_;
  std::vector<model::SampledToken> tokens_;
  std::size_t taken_ = 0;  // of tokens_, already handed out
  std::optional<pool::GenerationEnd> end_;
  bool overflowed_ = false;
  bool wake_scheduled_ = false;
  bool closed_ = false;
};

}  // namespace switchyard::gateway
