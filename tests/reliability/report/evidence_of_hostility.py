"""What hostile input may try, and the tests that try it. Only data."""

HOSTILITY: dict[tuple[str, str, str], dict[str, str]] = {
    (
        "requests",
        "Hostile input: requests",
        "What anybody may send to a running server: no server error, less than two seconds of its CPU, less than "
        "200 MB in all, nothing written. What each of the dear ones costs is measured at the server's process.",
    ): {
        "Generated requests to every way in, with any method, type, encoding and body": """
            test_hostile_http.py::test_no_request_is_answered_with_a_server_error""",
        "Generated names and values in every place of every action of every entity; SQL is among them": """
            test_hostile_calls.py::test_reading_writes_nothing_and_finds_no_fault_of_ours
            test_hostile_calls.py::test_no_call_that_writes_finds_a_fault_of_ours
            test_hostile_http.py::test_a_sort_return_operator_or_chain_that_is_sql_reaches_no_table""",
        "Calls made to be dear: chains that multiply, endless lists, sorts, names, filters": """
            test_hostile_costs.py::test_a_dear_call_costs_less_than_two_seconds_and_two_hundred_megabytes""",
        "Bodies made to be dear: forms, multipart, JSON, gzip bombs, as large as max_body": """
            test_hostile_costs.py::test_a_dear_body_costs_less_than_two_seconds_and_two_hundred_megabytes
            test_hostile_costs.py::test_requests_that_are_refused_leave_nothing_behind_in_memory
            test_hostile_http.py::test_a_form_of_as_many_fields_and_brackets_as_we_read_is_read_and_one_of_more_refused""",
        "JSON nested 100,000 deep": """
            test_hostile_http.py::test_json_a_hundred_thousand_deep_is_refused
            test_hostile_http.py::test_json_rpc_a_hundred_thousand_deep_is_a_parse_error""",
        "Requests that are none, absurd lengths, two lengths, heads of megabytes": """
            test_hostile_http.py::test_a_request_that_is_none_is_refused_or_waited_for""",
        "XML is well-formed whatever is in it": """
            test_hostile_http.py::test_xml_is_well_formed_whatever_is_in_it""",
        "Headers and log lines that would begin a line of their own": """
            test_hostile_http.py::test_nothing_sent_begins_a_line_of_its_own_in_the_log_or_a_header_of_its_own""",
        "Keys reach neither log nor answers nor tracebacks, and no text is looked through twice for them": """
            test_hostile_http.py::test_no_key_is_in_the_log_or_in_any_answer_about_an_error
            test_logs.py::test_a_traceback_shows_the_fault_and_no_secret
            test_logs.py::test_a_text_made_to_be_looked_through_again_and_again_is_masked_at_once
            test_logs.py::test_a_text_of_any_length_is_shortened_and_loses_no_mask""",
        "An address in a webhook is never fetched, a results link never into a network of ours": """
            test_hostile_http.py::test_a_webhook_s_address_is_never_fetched
            test_events.py::TestBatchEvents::test_never_have_the_posted_address_fetched
            test_download.py::test_a_link_into_a_network_of_ours_is_not_followed
            test_download.py::test_a_download_is_led_on_only_to_where_a_link_may_lead
            test_download.py::test_a_download_that_is_led_on_forever_is_given_up
            test_download.py::test_a_download_carries_no_credentials_and_its_link_reaches_no_log""",
    },
    (
        "clients",
        "Hostile input: slow and idle clients",
        "The settings `idle_seconds`, `body_seconds` and `answer_seconds` of `[server]`, tried with 0.4 s.",
    ): {
        "A head that does not come, or comes byte by byte, and connections left open": """
            test_hostile_slow.py::test_a_head_that_does_not_come_is_not_waited_for
            test_hostile_slow.py::test_a_head_that_comes_byte_by_byte_is_not_waited_for
            test_hostile_slow.py::test_a_connection_kept_open_is_closed_when_nothing_more_comes""",
        "A body that does not come, or comes byte by byte": """
            test_hostile_slow.py::test_a_body_that_does_not_come_is_408
            test_hostile_slow.py::test_a_body_that_comes_byte_by_byte_is_408""",
        "An answer that is not taken": """
            test_hostile_slow.py::test_a_client_that_never_takes_its_answer_is_let_go_and_nobody_else
            test_hostile_slow.py::test_who_is_let_go""",
        "Hundreds of slow ones and thousands of idle ones keep nobody else waiting": """
            test_hostile_http.py::test_clients_that_send_a_byte_and_wait_keep_nobody_else_waiting
            test_hostile_http.py::test_idle_connections_keep_nobody_else_waiting""",
    },
    (
        "readers",
        "Hostile input: what others wrote",
        "Texts, files and archives put together to break what reads them: a value or the documented refusal, in less "
        "than two seconds of CPU and 200 MB.",
    ): {
        "Generated forms, multipart bodies, JSON, dates, PHP values, CSV files, settings, archives, answers as XML": """
            test_hostile_parsers.py::test_what_others_wrote_is_read_or_refused_in_time_and_in_little_memory""",
        "Generated folders of CSV files, imported": """
            test_hostile_imports.py::test_a_folder_is_imported_whole_or_refused_with_nothing_written""",
        "Archive bombs, absurd tar headers, path names, claims of a terabyte, damaged bytes": """
            test_archive.py::test_what_cannot_be_trusted_is_refused
            test_archive.py::test_any_bytes_at_all_give_results_or_a_bad_archive
            test_archive.py::test_any_damaged_byte_gives_results_or_a_bad_archive
            test_archive.py::test_member_names_are_never_paths
            test_download.py::test_a_download_larger_than_allowed_is_given_up_at_once""",
        "Mistakes in settings are one sentence without a secret": """
            test_settings.py::test_settings_never_show_their_secrets""",
    },
    (
        "pages",
        "Hostile input: pages and webhooks",
        "A site whose every name and address is markup; forms of other sites; sessions planted; events made up by "
        "somebody who knows the secret.",
    ): {
        "Markup in names, addresses and every field of a query, on every page": """
            test_hostile_pages.py::test_no_name_or_address_is_markup_on_any_page
            test_hostile_pages.py::test_the_names_are_on_the_pages
            test_explorer.py::test_pages_carry_no_script_or_style_of_their_own_and_fetch_nothing_from_elsewhere
            test_explorer.py::test_every_page_forbids_scripts_that_are_not_its_own""",
        "Forms that another site, another browser or nobody showed (CSRF)": """
            test_hostile_pages.py::test_no_page_takes_a_form_that_it_did_not_show_to_this_browser
            test_explorer.py::test_a_form_sent_by_another_site_is_refused_even_with_the_right_token
            test_explorer.py::test_a_token_from_before_the_log_in_is_worth_nothing_after_it
            test_authx.py::test_a_session_needs_the_header_that_another_site_cannot_send""",
        "A session planted before the log-in (fixation)": """
            test_hostile_pages.py::test_a_session_planted_before_the_log_in_is_worth_nothing_after_it
            test_authx.py::test_a_planted_cookie_is_no_session
            test_authx.py::test_every_login_makes_a_new_cookie""",
        "A log-in leads to no other site": """
            test_explorer.py::test_a_log_in_leads_to_no_other_site
            test_authx.py::test_the_redirect_never_leaves_this_site""",
        "Generated webhooks with the right secret": """
            test_hostile_pages.py::test_no_event_that_was_made_up_is_a_server_error_or_changes_anybody""",
    },
}
