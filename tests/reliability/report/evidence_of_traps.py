"""Every trap of ``contract/mailchimp.md``, section by section, with the tests that walk into it. Only data.

Sections 2, 3, 5, 6, 10 and 11 say what Mailchimp is like and name no trap of their own; 13 names sources. What 12 sums
up from the others is told where it belongs, the rest under 12.
"""

TRAPS: dict[tuple[int, str], dict[str, str]] = {
    (1, "the connection"): {
        "A key without a data centre is refused before anything is sent": """
            test_account_info.py::test_a_key_without_a_data_centre_is_told_so
            test_client.py::test_the_base_url_tells_where_an_account_lives""",
        "Ten connections for all programs of a user: never more than eight of ours": """
            test_traps_connection.py::TestTheCap::test_several_clients_of_one_account_share_the_cap
            test_traps_connection.py::TestTheCap::test_trying_a_key_that_is_in_use_counts_as_well
            test_traps_connection.py::TestTheCap::test_another_account_has_a_cap_of_its_own
            test_traps_connection.py::TestTheCap::test_two_audiences_synced_by_two_services_at_once_stay_under_the_cap
            test_client.py::test_never_more_connections_at_once_than_allowed
            test_client_faults.py::test_waiting_for_another_attempt_holds_no_connection""",
        "No Retry-After and no rate-limit headers: back-off with jitter of our own": """
            test_traps_connection.py::TestBackOff::test_waits_double_up_to_a_limit
            test_traps_connection.py::TestBackOff::test_waits_carry_jitter
            test_traps_connection.py::TestBackOff::test_a_retry_after_from_something_in_between_changes_nothing
            test_traps_connection.py::TestBackOff::test_the_waits_of_a_running_program_last_long_enough_for_mailchimp_to_recover
            test_client_faults.py::test_the_number_of_attempts_is_the_callers_to_set""",
        "A request over 120 s is cut, or answered by a gateway's page": """
            test_client_faults.py::test_a_request_past_mailchimps_time_limit_gets_a_page_and_is_repeated
            test_client_faults.py::test_a_server_that_never_answers_is_given_up_on
            test_client_faults.py::test_a_slow_body_is_waited_for""",
        "Bodies that are not JSON, with 200 and with 5xx, are no answer": """
            test_traps_connection.py::TestNotJson::test_a_sync_that_is_answered_with_it_stops_and_goes_on_later
            test_client_faults.py::test_an_idempotent_call_is_repeated_until_it_succeeds
            test_client_faults.py::test_when_nothing_helps_the_last_error_is_told_with_what_is_known_of_the_outcome
            test_client_faults.py::test_what_an_answer_means
            test_client_faults.py::test_only_a_404_from_mailchimp_itself_makes_a_member_absent
            test_client_faults.py::test_the_first_500_characters_of_a_page_are_kept_for_the_log""",
        "A write whose answer was lost may have been carried out": """
            test_client_faults.py::test_posting_a_member_or_a_webhook_is_not_repeated_after_a_reset
            test_client_faults.py::test_tags_and_archiving_are_repeated_after_a_reset""",
        "A problem document may lack its type, and its title may come translated": """
            test_traps_connection.py::TestNotJson::test_a_problem_document_needs_no_type
            test_traps_connection.py::TestNotJson::test_a_problem_document_may_hold_no_more_than_status_and_title
            test_wire.py::test_what_a_problem_means""",
        "A key revoked half-way: the audience stops, says why, and goes on when the key is mended": """
            test_traps_connection.py::TestAKeyRevokedHalfWay::test_the_audience_stops_says_why_and_goes_on_when_the_key_is_mended
            test_traps_connection.py::TestAKeyRevokedHalfWay::test_a_batch_in_flight_is_settled_with_the_new_key
            test_traps_connection.py::TestAKeyRevokedHalfWay::test_a_disabled_user_stops_a_fetch_in_the_middle_and_nothing_is_lost
            test_traps_connection.py::TestAKeyRevokedHalfWay::test_no_request_is_repeated_with_a_key_that_was_refused
            test_traps_connection.py::TestAKeyRevokedHalfWay::test_one_account_that_stopped_keeps_no_other_from_its_turn
            test_traps_connection.py::TestAKeyRevokedHalfWay::test_system_check_shows_the_reason_too
            test_client_faults.py::test_a_disabled_user_stops_the_account_at_once""",
        "500 unfinished batches for an account, 20 batch webhooks": """
            test_submit.py::test_mailchimp_s_limit_of_open_batches_is_met_by_waiting
            test_traps_webhooks.py::TestWhatHooksSay::test_the_twenty_first_batch_webhook_is_refused_in_mailchimp_s_words""",
        "A 204 has an empty body and still a JSON content type": """
            test_client_faults.py::test_a_204_is_a_success_whatever_content_type_it_bears""",
    },
    (4, "listing members"): {
        "Every collection has pages of ten unless asked otherwise": """
            test_client.py::test_more_than_ten_of_anything_are_all_read
            test_client.py::test_batches_are_found_beyond_the_first_ten""",
        "The total moves while one pages": """
            test_paging.py::test_a_short_page_ends_a_walk_even_when_the_total_moved
            test_paging.py::test_a_server_that_gives_fewer_rows_than_asked_for_is_read_to_the_end""",
        "Archived members may or may not be in a plain listing": """
            test_client.py::test_archived_members_are_found_whether_or_not_a_plain_listing_holds_them
            test_paging.py::test_a_second_pass_asks_for_archived_members
            test_stages.py::test_archived_members_that_a_plain_listing_shows_too_are_kept_once""",
        "Offsets drift while people come and go": """
            test_client.py::test_rows_that_leave_during_a_walk_hide_nobody
            test_paging.py::test_rows_that_leave_make_no_other_row_slip_over_a_page_boundary
            test_paging.py::test_whoever_stays_is_seen_whatever_leaves_meanwhile
            test_paging.py::test_rows_that_left_while_a_walk_was_stopped_leave_no_gap""",
        "Absence from a listing is no proof that somebody left; permanent deletion is in no listing": """
            test_stages.py::test_someone_deleted_for_good_at_mailchimp_leaves_the_group_and_is_not_put_back
            test_sync_member.py::test_someone_deleted_for_good_leaves_the_group""",
        "since_last_changed: zone ignored, fractions misread, + read as a space": """
            test_client.py::test_a_since_in_any_zone_is_sent_as_utc_in_whole_seconds_with_its_plus_encoded
            test_client_faults.py::test_the_plus_in_a_time_is_percent_encoded
            test_paging.py::test_since_when_a_walk_asks""",
        "since_last_changed: an equal second may or may not be included": """
            test_paging.py::test_an_incremental_walk_goes_by_key_not_by_offset
            test_stages.py::test_an_incremental_fetch_reads_from_the_last_sync_less_the_overlap""",
        "since_last_changed: a very old time makes Mailchimp hang": """
            test_client.py::test_a_very_old_since_is_left_out_because_mailchimp_hangs_on_it""",
        "A whole page may bear one second, as after an import": """
            test_paging.py::test_when_a_whole_page_bears_one_second_the_walk_goes_on_by_offset_within_it
            test_paging.py::test_an_order_that_never_holds_still_cannot_keep_a_walk_from_ending""",
        "The next since comes from Mailchimp's clock, not from ours": """
            test_stages.py::test_the_time_of_a_sync_is_mailchimps_when_the_fetch_began
            test_client.py::test_every_answer_tells_mailchimps_clock""",
    },
    (7, "batches"): {
        "A submission whose outcome is unknown is looked for before it is sent again": """
            test_submit.py::test_the_lost_answer_of_a_submission
            test_submit.py::test_a_process_killed_after_the_post_leaves_a_batch_that_the_next_one_finds
            test_submit.py::test_a_process_killed_before_the_post_leaves_a_batch_that_the_next_one_sends
            test_submit.py::test_another_program_s_batch_of_another_size_is_not_taken_for_ours
            test_submit.py::test_a_batch_taken_for_ours_by_mistake_does_no_harm
            test_client_faults.py::test_a_batch_whose_submit_had_an_unknown_outcome_is_not_blindly_sent_again""",
        "Methods in upper case, bodies as text, skip_merge_validation in both places": """
            test_wire.py::test_an_operations_method_is_always_upper_case
            test_wire.py::test_an_operations_body_is_a_string_of_json_and_absent_when_there_is_none
            test_wire.py::test_a_put_operation_carries_skip_merge_validation_in_params_and_in_the_path""",
        "A fresh batch has no times and counts of nothing": """
            test_wire.py::test_a_fresh_batch_has_no_times_and_no_counts""",
        "All operations may be done long before the batch is finished": """
            test_traps_batches.py::TestTheEnd::test_a_batch_with_every_operation_done_is_not_taken_for_finished
            test_traps_batches.py::TestTheEnd::test_a_batch_that_takes_long_is_asked_about_at_growing_gaps_of_five_minutes_at_most""",
        "One batch of an account runs at a time, others' batches first": """
            test_traps_batches.py::TestTheEnd::test_another_program_s_batch_that_takes_hours_delays_ours_and_loses_nothing""",
        "A link to results lives ten minutes and takes no credentials": """
            test_client.py::test_a_fresh_link_is_fetched_right_before_each_download
            test_results.py::TestBatchesThatVanish::test_a_link_that_expired_is_asked_for_anew
            test_download.py::test_a_download_carries_no_credentials_and_its_link_reaches_no_log
            test_download.py::test_a_download_that_fails_is_repeated_with_a_fresh_link""",
        "Results expire after seven days": """
            test_results.py::TestBatchesThatVanish::test_results_that_expired_after_seven_days_are_sent_for_again
            test_traps_batches.py::TestGone::test_a_server_that_slept_for_longer_than_results_last_sends_again_what_it_cannot_know
            test_client.py::test_results_end_after_seven_days""",
        "A batch may be deleted by somebody else": """
            test_traps_batches.py::TestGone::test_a_batch_that_somebody_deleted_at_mailchimp_is_sent_again
            test_results.py::TestBatchesThatVanish::test_a_batch_that_mailchimp_knows_no_more_is_sent_again""",
        "Result files may be empty": """
            test_traps_batches.py::TestArchives::test_an_empty_result_file_among_others_is_no_harm
            test_traps_batches.py::TestArchives::test_result_files_that_are_all_empty_have_everything_sent_again
            test_traps_batches.py::TestArchives::test_an_archive_without_any_file_has_everything_sent_again
            test_archive.py::test_an_empty_file_holds_no_results""",
        "Operations may be missing from the results": """
            test_traps_batches.py::TestArchives::test_an_operation_missing_from_the_results_is_sent_again_alone
            test_traps_batches.py::TestArchives::test_a_result_without_an_operation_id_is_nobody_s_and_its_operation_is_sent_again
            test_results.py::TestPassingTrouble::test_is_sent_again""",
        "Order is not kept, results are split anywhere, some may not be ours": """
            test_traps_batches.py::TestArchives::test_results_in_another_order_and_split_anywhere_find_their_rows
            test_traps_batches.py::TestArchives::test_a_result_told_twice_counts_once
            test_traps_batches.py::TestArchives::test_results_of_operations_that_are_not_ours_are_passed_over
            test_submit.py::test_one_member_is_never_in_two_open_batches
            test_submit.py::test_tags_wait_until_the_member_update_is_done""",
        "The archive may be broken, no archive at all, or a web page": """
            test_results.py::TestBatchesThatVanish::test_an_archive_that_says_nothing_sends_it_all_again
            test_traps_batches.py::TestArchives::test_a_download_that_answers_html_is_tried_again_and_then_read
            test_archive.py::test_any_damaged_byte_gives_results_or_a_bad_archive""",
        "gzip is told by its magic bytes; a response may be empty": """
            test_download.py::test_gzip_is_told_by_its_magic_bytes
            test_archive.py::test_how_a_response_is_read""",
        "Finished says nothing of the operations: any number may have failed, or met 429 or 5xx": """
            test_client.py::test_results_carry_refusals_that_the_predicates_read
            test_results.py::TestPassingTrouble::test_is_sent_again
            test_results.py::TestPassingTrouble::test_that_never_passes_is_given_up
            test_wire.py::test_which_results_are_queued_again""",
    },
    (8, "audience webhooks"): {
        "Events and sources left out count as on: all are sent in full, api off": """
            test_client.py::test_a_webhook_never_listens_to_changes_by_api_and_states_all_its_events""",
        "Mailchimp tries an address by GET or an empty POST before it takes it": """
            test_mailchimp_webhooks.py::test_mailchimp_may_try_an_address_before_it_takes_it
            test_webhook_update.py::test_an_account_without_a_secret_has_one_before_mailchimp_tries_the_address""",
        "A second hook with the same address is refused": """
            test_webhook_update.py::test_an_audience_webhook_is_added_once_and_stored""",
        "Listings and refusals show the secret in our address": """
            test_client.py::test_a_refused_webhook_does_not_show_its_secret
            test_wire.py::test_signed_links_and_webhook_secrets_stay_out_of_representations""",
        "An answer is due within ten seconds": """
            test_webhook_event.py::TestAnswering::test_an_event_is_stored_before_mailchimp_has_its_answer
            test_webhook_event.py::TestAnswering::test_mailchimp_has_its_answer_while_a_sync_waits_for_mailchimp""",
        "A hook that fails for long is disabled and nothing says so": """
            test_traps_webhooks.py::TestDisabledHooks::test_a_hook_that_mailchimp_disabled_is_noticed_by_the_next_sync_and_mended_by_updatewebhook
            test_traps_webhooks.py::TestDisabledHooks::test_the_doctor_s_look_is_what_getstatus_shows_next
            test_traps_webhooks.py::TestDisabledHooks::test_a_removed_hook_counts_as_missing_at_once
            test_traps_webhooks.py::TestDisabledHooks::test_a_look_that_fails_spoils_no_sync_and_takes_nothing_back
            test_traps_webhooks.py::TestDisabledHooks::test_without_a_public_address_it_is_said_so_and_nobody_is_asked""",
        "Hooks get lost: what one would have told the next sync finds": """
            test_traps_webhooks.py::TestWhatHooksLeaveOut::test_what_a_lost_webhook_would_have_told_the_next_sync_finds""",
        "Changes by API tell us nothing, our own included": """
            test_traps_webhooks.py::TestWhatHooksLeaveOut::test_changes_of_our_own_tell_us_nothing_and_start_no_ping_pong""",
        "Events we do not want are answered well": """
            test_mailchimp_webhooks.py::test_an_event_of_a_member_is_kept_or_told_why_not""",
        "Delivery is at least once and in any order": """
            test_events.py::TestRepeats::test_the_same_event_twice_is_kept_once
            test_events.py::TestRepeats::test_events_out_of_order_end_at_what_mailchimp_says
            test_events.py::TestRepeats::test_the_same_words_after_something_else_happened_are_news""",
        "One change of address comes as profile and as upemail, which has no data[email]": """
            test_traps_webhooks.py::TestWhatHooksSay::test_one_change_of_address_that_comes_as_profile_and_upemail_makes_one_contact
            test_sync_member.py::test_a_new_address_told_twice_is_taken_once
            test_sync_member.py::test_a_new_address_told_before_we_knew_the_old_one_makes_one_contact""",
        "A subscribe event comes when a pending person confirms": """
            test_traps_webhooks.py::TestWhatHooksLeaveOut::test_a_pending_person_is_told_of_when_they_confirm_and_not_before""",
        "Archiving in Mailchimp's pages arrives as a deletion": """
            test_traps_webhooks.py::TestWhatHooksSay::test_archiving_in_mailchimp_s_pages_arrives_as_a_deletion_and_is_looked_up""",
        "Whoever knows no secret is not heard; signed deliveries are taken like any other": """
            test_mailchimp_webhooks.py::test_without_the_secret_nobody_is_heard
            test_traps_webhooks.py::TestWhatHooksSay::test_a_signed_delivery_is_taken_by_the_secret_in_its_address""",
        "What is posted is a hint and never believed": """
            test_sync_member.py::test_what_the_webhook_says_is_never_believed""",
    },
    (9, "batch webhooks"): {
        "They hear of every program's batches": """
            test_traps_webhooks.py::TestWhatHooksSay::test_a_batch_hook_hears_of_every_program_and_only_ours_is_looked_at
            test_events.py::TestBatchEvents::test_of_another_program_s_batch_are_ignored
            test_mailchimp_webhooks.py::test_a_finished_batch_is_kept_and_anything_else_is_no_error""",
        "The posted address of the results is never fetched": """
            test_events.py::TestBatchEvents::test_never_have_the_posted_address_fetched""",
        "They get lost, so polling finishes everything without them": """
            test_watcher.py::TestTheWatcher::test_finishes_everything_without_webhooks""",
        "One may be gone or switched off": """
            test_traps_webhooks.py::TestDisabledHooks::test_a_batch_hook_that_is_gone_or_switched_off_is_noticed""",
    },
    (12, "for a sync engine"): {
        "Our own writes come back in the next fetch and are no news": """
            test_stages.py::test_our_own_write_seen_by_a_fetch_never_outranks_a_later_word_of_civicrm
            test_stages.py::test_a_page_in_which_nothing_changed_leaves_the_rows_untouched
            test_member_codec.py::test_our_own_write_is_dated_by_the_word_that_caused_it""",
        "last_changed moves for reasons that are none of ours": """
            test_stages.py::test_a_change_that_the_sync_does_not_care_for_is_not_thought_about
            test_member_codec.py::test_a_field_that_did_not_change_keeps_its_time""",
        "Clocks differ; times have whole seconds": """
            test_member_codec.py::test_fields_are_dated_by_our_clock_where_mailchimps_is_wrong
            test_decide.py::test_decide""",
        "Pending is neither in nor out, is asked for once, and cannot be archived": """
            test_results.py::TestRefusals::test_a_compliance_refusal_is_followed_by_one_request_for_pending
            test_results.py::TestRefusals::test_refused_as_pending_too_it_is_at_rest
            test_updates.py::test_pending_is_not_turned_back_into_subscribed
            test_decide.py::test_nobody_pending_is_archived_because_mailchimp_refuses_it""",
        "405 on archiving: cleaned, pending, or archived already": """
            test_results.py::TestArchiving::test_of_one_archived_already_is_success
            test_results.py::TestArchiving::test_of_a_cleaned_member_fails_with_405_and_tells_the_status
            test_client.py::test_a_cleaned_member_cannot_be_archived_and_an_absent_one_is_not_found""",
        "A forgotten address never comes back by API": """
            test_results.py::TestRefusals::test_someone_forgotten_fails_for_good
            test_stages.py::test_what_mailchimp_refused_is_sent_again_only_when_a_person_asks_for_it""",
        "One member, several contacts: one address is owned by one of them": """
            test_stages.py::test_two_contacts_with_one_address_send_it_once
            test_stages.py::test_a_contact_added_later_takes_over_the_address_of_one_who_left""",
        "A change of address makes a new id; the target may be taken": """
            test_stages.py::test_an_address_changed_at_mailchimp_stays_one_person
            test_stages.py::test_the_old_address_is_archived_where_the_new_one_is_a_member_already
            test_client.py::test_a_change_of_address_gives_a_new_id_and_keeps_the_contact_id""",
        "Very old members have the hash of their mixed-case address": """
            test_sync_member.py::test_a_very_old_member_is_looked_up_by_the_id_we_know
            test_client.py::test_a_member_with_the_hash_of_its_mixed_case_address_is_found_by_its_own_id""",
        "Merge fields made mandatory overnight break no write": """
            test_client.py::test_required_merge_fields_that_somebody_added_do_not_break_writes""",
        "An empty name at Mailchimp wipes none in CiviCRM": """
            test_sync_member.py::test_new_names_reach_the_contact_and_empty_ones_do_not""",
        "An empty text stands for no time": """
            test_wire.py::test_parse_instant""",
        "Keys, secrets and signed links reach no log, message or traceback": """
            test_client_faults.py::test_secrets_that_a_server_repeats_reach_no_message_log_or_traceback
            test_logs.py::test_a_mailchimp_key_is_masked_wherever_it_stands""",
    },
}
